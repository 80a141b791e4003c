"""One file per way to run a model; a file in this folder is listed by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

import torch

from suite.errors import RequestError, unknown
from suite.formats.packages import not_installed
from suite.measure.runtimes.base import REGISTERED, Runtime

EAGER, COMPILED = "eager", "compiled"
ALIASES = {"compile": COMPILED}
"""Other words for a runtime, in requests."""


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
    name = ALIASES.get(name, name)
    if name not in list_runtimes():
        raise unknown("runtime", name, REGISTERED)
    return REGISTERED[name]()


def make_runtimes(names: Sequence[str], device: torch.device) -> list[Runtime]:
    """The runtimes of these names, each once. RequestError for an unknown one, and one that does not run there."""
    made = {runtime.name: runtime for runtime in map(make_runtime, names)}
    for name, runtime in made.items():
        if runtime.lacking:
            raise RequestError(f"runtime {name!r}: {not_installed(runtime.lacking)}")
        if not runtime.runs_on(device):
            raise RequestError(f"runtime {name!r} does not run on {device.type}; give another --device, or {EAGER}")
    return list(made.values())
