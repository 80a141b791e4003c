"""Which sources decide a result: those that its parts reach by their imports, wherever these stand.

Modules of the project and of its users count by their content; installed packages that a user's code imports, by their
versions. What the project itself needs installed belongs to the environment, which a run records.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Collection, Iterator
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import ModuleType

from suite.errors import RequestError

OURS = frozenset({"suite", "tasks", "reports", "run_bench"})
FOLDERS = frozenset(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
READ: dict[Path, str] = {}
"""File -> SHA-256 of what this process saw in it first."""


def digest_sources(roots: Collection[str]) -> str:
    """SHA-256 over the modules `roots` (dotted names) and all that they import, directly or not.

    Raises:
        RequestError: a root has no file to be known by, or a file is not what this process read before.
    """
    return hashlib.sha256("\n".join(sorted(_facts(roots))).encode()).hexdigest()


def reach(roots: Collection[str]) -> dict[str, Path]:
    """Name -> file of every module of the project, or of a user, that `roots` import, directly or not."""
    found: dict[str, Path] = {}
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name in found or (file := _file_of(name)) is None or _is_installed(name, file):
            continue
        found[name] = file
        todo += _imports(name, file)
    return found


def _facts(roots: Collection[str]) -> Iterator[str]:
    found = reach(roots)
    for name in roots:
        file = _file_of(name)
        if file is None:
            raise RequestError(
                f"module {name!r} has no source file, by which its results could be told from those of another "
                "version; write it into a file, and name it as path/to/file.py:ClassName"
            )
        yield _content(file)
    yield from map(_content, found.values())
    strangers = {name for name in found if name.partition(".")[0] not in OURS}
    used = {other for name in strangers for other in _imports(name, found[name])} | set(roots)
    packages = {name.partition(".")[0] for name in used - set(found)} - OURS  # ours count by their content
    yield from {release for package in packages for release in _releases(package)}


def _file_of(name: str) -> Path | None:
    """None for what is built in, is a folder without a file of its own, or is not here. Nothing is imported."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return None
    file, folders = None, None
    for end, part in enumerate(parts := name.split(".")):
        module = sys.modules.get(".".join(parts[: end + 1]))
        if module is not None:
            file, folders = getattr(module, "__file__", None), getattr(module, "__path__", None)
            continue
        if end and not folders:
            return None  # a name in a module
        spec = PathFinder.find_spec(".".join(parts[: end + 1]), folders) if end else find_spec(part)
        if spec is None:
            return None
        file, folders = spec.origin if spec.has_location else None, spec.submodule_search_locations
    return Path(file) if file else None


def _is_installed(name: str, file: Path) -> bool:
    """Whether it is Python's own or an installed package's, other than the project."""
    top = name.partition(".")[0]
    return top not in OURS and (
        top in sys.stdlib_module_names
        or not FOLDERS.isdisjoint(file.parents)
        or any(parent.name in ("site-packages", "dist-packages") for parent in file.parents)
    )


@cache
def _imports(name: str, file: Path) -> frozenset[str]:
    """Modules that the code of module `name` imports, and the packages around them; of ours, only other ones of ours.

    Of a user's module also those that what it holds is from, for it may import in ways that its text does not show.
    """
    ours, module = name.partition(".")[0] in OURS, sys.modules.get(name)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = set(_written(file, package))
    if not ours and module is not None:
        for value in list(vars(module).values()):
            held = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            found |= {held} if isinstance(held, str) else set()
    found |= {parent for other in found | {name} for parent in _packages_around(other)}
    return frozenset(other for other in found if other != name and (not ours or other.partition(".")[0] in OURS))


def _packages_around(name: str) -> Iterator[str]:
    """'a.b.c' -> 'a.b', 'a'."""
    while name := name.rpartition(".")[0]:
        yield name


def _written(file: Path, package: str) -> Iterator[str]:
    """Names in the import statements of a file; of 'from a import b' both a and a.b, which need not be a module."""
    if file.suffix != ".py":
        return
    for node in _running_statements(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            written = node.module or ""
            base = resolve_name("." * node.level + written, package) if node.level else written
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _running_statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements, however deep, but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            continue
        if isinstance(node, ast.If) and getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING":
            node = ast.Module(node.orelse, [])
        yield node
        yield from _running_statements(node)


def _content(file: Path) -> str:
    """SHA-256 of a file. What a process imported once stays what it runs, so another content later is refused."""
    now = hashlib.sha256(file.read_bytes()).hexdigest()
    if now != READ.setdefault(file, now):
        raise RequestError(f"{str(file)!r} has changed since this process read it; start Python anew to run it")
    return now


def _releases(package: str) -> Iterator[str]:
    """'name==version' of the distributions that an installed package is from; none of Python's own."""
    try:
        names = [package] if version(package) else []
    except PackageNotFoundError:  # its distribution has another name, which takes longer to find
        names = _distributions().get(package, [])
    for name in names:
        yield f"{name}=={version(name)}"


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())
