"""One file per way to run a model; a file in this folder is listed by being there."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from suite.errors import unknown
from suite.measure.runtimes.base import REGISTERED, Runtime

EAGER, COMPILED = "eager", "compiled"


@cache
def load_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def list_runtimes() -> list[str]:
    """Names of all runtimes, sorted."""
    load_all()
    return sorted(REGISTERED)


def make_runtime(name: str) -> Runtime:
    """The runtime of that name. RequestError for an unknown one."""
    if name not in list_runtimes():
        raise unknown("runtime", name, REGISTERED)
    return REGISTERED[name]()


def flag_of(name: str) -> bool | str:
    """What stands under 'compile' in stored files: False, True, or the name of a runtime that is neither of these."""
    return {EAGER: False, COMPILED: True}.get(name, name)
