"""One file per task; a file here or in a folder below with a Task subclass that has a name is listed by being there."""

from __future__ import annotations

import importlib
import inspect
from functools import cache, partial
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from suite.contract.declarations import declared
from suite.contract.plugins import add_once, find, load_plugins, members

if TYPE_CHECKING:
    from suite.contract.task import Task


@cache
def outlines() -> dict[str, type]:
    """Every task by name. Those of this folder as their files declare them: the name is written out in the class, for
    no file is imported. Those of installed plug-ins are the classes themselves."""
    found = declared(__name__, "suite.contract.task:Task")
    load_plugins("task", found, partial(_add_plugin, found))
    return found


def _add_plugin(found: dict[str, type], point: EntryPoint) -> None:
    """Take a task, or all of a module. TypeError or ValueError for what is none, lacks something, or has a name that is
    taken."""
    from suite.contract.task import Task  # imports torch, for which nobody waits without a plug-in

    def is_named_task(value: object) -> bool:
        return isinstance(value, type) and issubclass(value, Task) and "name" in vars(value)

    for cls in members(point.load(), "subclass of suite.contract.task.Task with a name", is_named_task):
        needed = [name for name, kind in Task.__annotations__.items() if str(kind).startswith("ClassVar")]
        missing = [name for name in needed if not hasattr(cls, name)]
        if missing or inspect.isabstract(cls):
            raise TypeError(f"task {cls.name!r} lacks {', '.join(missing or sorted(cls.__abstractmethods__))}")
        add_once(found, "task", cls.name, cls)


def list_tasks() -> list[str]:
    """Names of all tasks, sorted."""
    return sorted(outlines())


def task_class(name: str) -> type[Task]:
    """The task of that name. RequestError, with the nearest names, for an unknown one."""
    outline = find(outlines(), "task", name)
    found: type[Task] = getattr(importlib.import_module(outline.__module__), outline.__name__)
    return found
