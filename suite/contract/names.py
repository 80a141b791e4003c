"""`tasks` and `reports` are ours in every process that uses the suite, and theirs beside it.

Python takes a module from the folder of the script that runs before any other, so a user's own `tasks.py`, or a folder
`reports`, would stand where the suite looks for its own. Ours has the name; what it lacks, a name or a submodule, is
looked for in theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
NAMES = ("tasks", "reports")


def claim_names() -> None:
    """From now on the names are ours, whatever has been imported by them before, and whatever lies on the path."""
    sys.meta_path.insert(0, Finder())
    for name in NAMES:
        theirs = sys.modules.get(name)
        if theirs is None or _is_ours(theirs):
            continue
        for imported in [other for other in sys.modules if other.partition(".")[0] == name]:
            if ROOT.joinpath(*imported.split(".")).with_suffix(".py").is_file() or imported == name:
                del sys.modules[imported]
        BEFORE[name] = theirs


BEFORE: dict[str, ModuleType] = {}
"""Theirs, where they were imported first."""


class Finder(MetaPathFinder):
    """Finds ours by our names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for every other name."""
        spec = PathFinder.find_spec(name, [str(ROOT)]) if name in NAMES else None
        if spec is not None and spec.origin:
            spec.loader = Loader(name, spec.origin)
        return spec


class Loader(SourceFileLoader):
    """Runs ours, and has it look in theirs for what it lacks."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        theirs = _find_theirs(module.__name__)
        if theirs is not None:
            module.__path__.extend(theirs.submodule_search_locations or ())
            vars(module)["__getattr__"] = _looking_in(theirs)


def _is_ours(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and Path(str(file)).resolve().is_relative_to(ROOT.resolve())


def _find_theirs(name: str) -> ModuleSpec | None:
    if name in BEFORE:
        return BEFORE[name].__spec__
    return PathFinder.find_spec(name, [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT.resolve()])


def _looking_in(theirs: ModuleSpec) -> Callable[[str], Any]:
    """A module's `__getattr__`. Theirs is run when it is first asked for."""

    @cache
    def module() -> ModuleType:
        if theirs.name in BEFORE:
            return BEFORE[theirs.name]
        made = module_from_spec(theirs)
        if theirs.loader is not None:  # else a folder without a file of its own
            theirs.loader.exec_module(made)
        return made

    def look(name: str) -> Any:
        if name.startswith("__"):  # what Python asks of every module
            raise AttributeError(name)
        return getattr(module(), name)

    return look
