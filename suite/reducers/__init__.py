"""One file per method; a file in this folder is listed by being there.

A method's author needs no other import: `from suite.reducers import Reducer, bipartite_soft_matching, register`.
"""

from __future__ import annotations

import copyreg
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from suite.contract.baseline import BASELINE
from suite.contract.plugins import find, load_plugins
from suite.errors import RequestError, unknown
from suite.reducers.base import REGISTERED, Reducer, acts_in_blocks, register
from suite.reducers.plugins import add_plugin, check_class, load_folder, make
from suite.reducers.signals import Signals
from suite.tokens.layout import Layout
from suite.tokens.matching import bipartite_soft_matching
from suite.tokens.places import RULES
from suite.tokens.state import Tokens

__all__ = [
    "Layout",
    "Reducer",
    "Signals",
    "Tokens",
    "bipartite_soft_matching",
    "list_all_reducers",
    "list_reducers",
    "make_reducer",
    "reducer_class",
    "reducer_options",
    "register",
]

OF_EVERY_METHOD: dict[str, tuple[str, ...]] = {"group_position": RULES}
"""Options that every method takes, and their values, the first of them the default; attributes of `Reducer`."""
LARGEST = 2**63  # what an integer of a tensor stays below


@cache
def load_all() -> None:
    """Import every method of this folder and every installed plug-in; `LEFT_OUT` says which could not be."""
    load_folder([f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)])
    load_plugins("reducer", REGISTERED, add_plugin)


def list_reducers() -> list[str]:
    """Names of all reducers that act in the blocks of any backbone, sorted, with the unreduced model first."""
    return [name for name in list_all_reducers() if acts_in_blocks(REGISTERED[name])]


def list_all_reducers() -> list[str]:
    """Those, and what acts in the branches of a denoiser's blocks alone."""
    load_all()
    return sorted(REGISTERED, key=lambda name: (name != BASELINE, name))


def reducer_class(name: str) -> type[Reducer]:
    """The class behind a name, or behind `path/to/file.py:ClassName`. RequestError for an unknown one."""
    load_all()
    if name not in REGISTERED and ".py:" in name:
        return class_from_file(*name.rsplit(":", 1))
    return find(REGISTERED, "reducer", name)


def reducer_options(name: str) -> dict[str, object]:
    """A method's options and their defaults."""
    return {key: parameter.default for key, parameter in inspect.signature(reducer_class(name)).parameters.items()}


def make_reducer(name: str, **options: object) -> Reducer:
    """A reducer with its options. RequestError for an unknown name, option, or a value that the method refuses."""
    cls, known = reducer_class(name), reducer_options(name)
    common = {option: options.pop(option) for option in OF_EVERY_METHOD if option in options}
    for option, value in common.items():
        if value not in OF_EVERY_METHOD[option]:
            raise unknown(f"{option} of reducer {name!r}:", str(value), OF_EVERY_METHOD[option])
    for option, value in options.items():
        if option not in known:
            raise unknown(f"option of reducer {name!r}:", option, {*known, *OF_EVERY_METHOD})
        default = known[option]
        wanted = (int, float) if isinstance(default, float) else type(default)
        odd = not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool))
        if default is not None and default is not inspect.Parameter.empty and odd:
            kind = type(default).__name__
            raise RequestError(
                f"option {option}={value!r} of reducer {name!r} is not of type {kind}; default {default!r}"
            )
        if isinstance(value, int | float) and not abs(value) < LARGEST:  # no number is not below it either
            raise RequestError(f"option {option}={value!r} of reducer {name!r} is no number below {LARGEST:g}")
    try:
        made = make(cls, options)
    except Exception as error:  # whatever the method's own code raises is reported against it
        what = f" refuses {options}" if options else ""
        raise RequestError(f"reducer {name!r}{what}: {' '.join(str(error).split())}") from error
    vars(made).update(common)
    return made


def class_from_file(path: str, class_name: str) -> type[Reducer]:
    """The reducer class `class_name` of a Python file outside the package."""
    file = Path(path)
    if not file.is_file():
        raise RequestError(f"reducer file {path!r} does not exist; give path/to/file.py:ClassName")
    cls = getattr(module_from_file(file.resolve()), class_name, None)
    if not (inspect.isclass(cls) and issubclass(cls, Reducer)):
        raise RequestError(f"{path!r} has no Reducer class named {class_name!r}")
    try:
        check_class(cls)
    except TypeError as error:
        raise RequestError(f"reducer {path}:{class_name}: {error}") from error
    if "name" not in cls.__dict__:
        cls.name = class_name
    copyreg.pickle(cls, partial(_pickled, str(file.resolve()), class_name))
    return cls


def _pickled(path: str, class_name: str, reducer: Reducer) -> tuple[Any, ...]:
    """Kept by its file, for another process knows no module of its name."""
    return _unfilled, (path, class_name), reducer.__getstate__()


def _unfilled(path: str, class_name: str) -> Reducer:
    return object.__new__(class_from_file(path, class_name))


@cache
def module_from_file(file: Path) -> ModuleType:
    name = f"reducer_file_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise RequestError(f"reducer file {str(file)!r} is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # `inspect` finds a class's source through this
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's file raises is reported against the file
        del sys.modules[name]
        raise RequestError(f"reducer file {str(file)!r} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
