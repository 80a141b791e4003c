"""One file per task; a file here or in a folder below with a Task subclass that has a name is listed by being there."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

from suite.contract.declarations import declared
from suite.errors import unknown

if TYPE_CHECKING:
    from suite.contract.task import Task


@cache
def outlines() -> dict[str, type]:
    """Every task by name, as its file declares it; the name is written out in the class, for no file is imported."""
    return declared(__name__, "suite.contract.task:Task")


def list_tasks() -> list[str]:
    """Names of all tasks, sorted."""
    return sorted(outlines())


def task_class(name: str) -> type[Task]:
    """The task of that name. RequestError, with the nearest names, for an unknown one."""
    if name not in outlines():
        raise unknown("task", name, outlines())
    outline = outlines()[name]
    found: type[Task] = getattr(importlib.import_module(outline.__module__), outline.__name__)
    return found
