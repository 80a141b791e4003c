"""Benchmark of token reduction in Vision Transformers, by the name that it is installed by.

`from reducerbench import attach` and `from suite import attach` are the same. Importing either makes `suite`, `tasks`
and `reports` ours, wherever they lie and whatever else has these names.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

PLACES = (Path(__file__).parent / "packages", *map(Path, sys.path))
ROOT = next(folder for folder in PLACES if (folder / "suite" / "contract" / "names.py").is_file())
"""Where the packages lie: in the folder of the wheel, or in a clone that an editable installation put on the path."""


def main() -> None:
    """The program `reducerbench`, which the folder that it is run from has no part in."""
    from suite.cli.program import main

    main()


def __getattr__(name: str) -> Any:
    return getattr(suite, name)


def _import_suite() -> ModuleType:
    """`suite` of `ROOT`. ImportError where another one was imported before."""
    known = sys.modules.get("suite")
    if known is None:
        spec = PathFinder.find_spec("suite", [str(ROOT)])
        assert spec is not None
        assert spec.loader is not None
        known = sys.modules["suite"] = module_from_spec(spec)
        spec.loader.exec_module(known)
    elif ROOT not in Path(str(known.__file__)).parents:
        raise ImportError(f"another 'suite' was imported before: {known.__file__}; import reducerbench first")
    return known


suite = _import_suite()
