"""One file per task; a file here or in a folder below with a Task subclass that has a name is listed by being there."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from suite.contract.task import Task
from suite.errors import unknown


@cache
def registered() -> dict[str, type[Task]]:
    """Every task by name."""
    found: dict[str, type[Task]] = {}
    for info in pkgutil.walk_packages(__path__, f"{__name__}."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Task) and "name" in value.__dict__:
                found[value.name] = value
    return found


def list_tasks() -> list[str]:
    """Names of all tasks, sorted."""
    return sorted(registered())


def task_class(name: str) -> type[Task]:
    """The task of that name. RequestError, with the nearest names, for an unknown one."""
    if name not in registered():
        raise unknown("task", name, registered())
    return registered()[name]
