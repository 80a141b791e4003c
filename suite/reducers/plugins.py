"""Reducers by being there: files of this folder and plug-ins of installed packages. What is broken is left out."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint

from suite.contract.plugins import leaving_out
from suite.reducers.base import REGISTERED, Reducer

FORMS = ("r", "keep", "side", "lines", "tau")


def load_folder(modules: list[str]) -> None:
    """Import the modules of the methods' folder, by their full names."""
    for module in modules:
        name, file = module.rpartition(".")[2], module.replace(".", "/")
        with leaving_out("reducer", name, f"reducer file {file}.py", REGISTERED):
            importlib.import_module(module)


def add_plugin(point: EntryPoint) -> None:
    """Load what an entry point names: a reducer's class, or a module that registers some.

    Raises TypeError or ValueError for what is none or could not be run, and whatever its import raises.
    """
    found, before = point.load(), set(REGISTERED)
    if inspect.isclass(found) and issubclass(found, Reducer):
        classes = [found]
        if found not in REGISTERED.values():
            raise TypeError(f"class {found.__name__} has no name; decorate it with @register(...)")
    elif inspect.ismodule(found):
        classes = [cls for cls in REGISTERED.values() if cls.__module__ == found.__name__]
        if not classes and set(REGISTERED) == before:
            raise TypeError(f"module {found.__name__} registers no reducer; decorate one with @register(...)")
    else:
        raise TypeError(f"{found!r} is no subclass of suite.reducers.base.Reducer")
    for cls in classes:
        check_class(cls)
        make(cls, {})


def make(cls: type[Reducer], options: dict[str, object]) -> Reducer:
    """An instance. Raises TypeError for a class that could not be run, and whatever its own code raises."""
    made = cls(**options)
    if "_trained" not in made.__dict__:
        raise TypeError("its __init__ does not call super().__init__() first; it has to")
    if made.rates and made.site is None and not made.acts_in_branches:
        raise TypeError("it overrides no hook; write before_block or after_attention")
    return made


def check_class(cls: type[Reducer]) -> None:
    """TypeError for a class whose rates nobody knows or whose hook cannot be called as hooks are."""
    if not isinstance(cls.rates, tuple) or not set(cls.rates) <= set(FORMS):
        raise TypeError(f"rates={cls.rates!r} is no tuple of {' and '.join(map(repr, FORMS))}")
    for name, promised in vars(Reducer).items():
        own = inspect.getattr_static(cls, name)
        if not inspect.isfunction(promised) or not inspect.isfunction(own) or name in ("__init__", "forward"):
            continue
        arguments = list(inspect.signature(promised).parameters)
        if own is not promised and not takes(own, arguments):
            raise TypeError(f"{name}{inspect.signature(own)} has to take ({', '.join(arguments)})")


def takes(function: Callable[..., object], arguments: Sequence[str]) -> bool:
    """Whether it can be called with so many arguments by position."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    return True
