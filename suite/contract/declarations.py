"""What there is of a kind, found without importing it: to list methods and tasks is not to wait for torch.

Classes are known by their statements in the files of a package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
READ = ("name", "rates", "learned")  # class attributes that lists show


class DeclarationError(Exception):
    """A class says something in a way that only running its file could tell. The text names the file."""


def declared(package: str, base: str) -> dict[str, type]:
    """Name -> outline of every class below `base` ('module:Class') that a file of `package` gives a name.

    An outline has the docstring, module, name and signature of the class, and those of the attributes `READ` that it or
    a class above it sets. Raises DeclarationError for a file that cannot be read, or a value that is not written out.
    """
    module, _, name = base.partition(":")
    above: type = _names(module)[name]
    found: dict[str, type] = {}
    for file in sorted(ROOT.joinpath(*package.split(".")).rglob("*.py")):
        inside = file.relative_to(ROOT)
        try:
            classes = _names(".".join(inside.with_suffix("").parts).removesuffix(".__init__")).classes()
        except (SyntaxError, ValueError, TypeError, NameError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise DeclarationError(f"{inside} declares what only running it could tell ({fault})") from error
        found |= {vars(cls)["name"]: cls for cls in classes if issubclass(cls, above) and "name" in vars(cls)}
    return found


class _Names(dict[str, Any]):
    """What the names of a module stand for, found when they are looked up: outlines of its classes, values that are
    written out, and both where it imports them from another module of the project. Another project's has no names."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.written: dict[str, ast.ClassDef | ast.expr] = {}
        self.imported: dict[str, tuple[str, str]] = {}
        folder = ROOT.joinpath(*module.split("."))
        is_package = folder.is_dir()
        package = module if is_package else module.rpartition(".")[0]
        file = folder / "__init__.py" if is_package else folder.with_suffix(".py")
        for node in ast.parse(file.read_bytes()).body if file.is_file() else ():
            if isinstance(node, ast.ClassDef):
                self.written[node.name] = node
            elif isinstance(node, ast.ImportFrom):
                source = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
                self.imported |= {alias.asname or alias.name: (str(source), alias.name) for alias in node.names}
            else:
                self.written |= dict(_assigned(node))

    def __missing__(self, name: str) -> Any:
        """NameError for what is another project's, or is made when the file is run."""
        if node := self.written.get(name):
            self[name] = self._outline(node) if isinstance(node, ast.ClassDef) else self._value(node)
        elif source := self.imported.get(name):
            self[name] = _names(source[0])[source[1]]
        else:
            raise NameError(f"{name!r} is not written out")
        return self[name]

    def classes(self) -> list[type]:
        return [self[name] for name, node in self.written.items() if isinstance(node, ast.ClassDef)]

    def _outline(self, node: ast.ClassDef) -> type:
        values: dict[str, Any] = {"__module__": self.module, "__doc__": ast.get_docstring(node, clean=False)}
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith("register"):
                values["name"] = self._value(decorator.args[0])
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                values["__init__"] = self._value(ast.Lambda(part.args, ast.Constant(None)))  # of the same arguments
            values |= {name: self._value(value) for name, value in _assigned(part) if name in READ}
        return type(node.name, tuple(self._bases(node)), values)

    def _bases(self, node: ast.ClassDef) -> Iterator[type]:
        """Outlines of those classes of the project that a class is derived from."""
        for base in node.bases:
            with suppress(NameError):
                yield self._value(base)

    def _value(self, node: ast.expr) -> Any:
        expression = ast.fix_missing_locations(ast.Expression(node))
        return eval(compile(expression, self.module, "eval"), {}, self)


def _assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """What a statement assigns, by name."""
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name):
                yield target.id, node.value


_names = cache(_Names)
