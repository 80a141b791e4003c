"""One file per kind of task; a file in this folder serves its kind by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from suite.contract.task import Task
from suite.errors import RequestError
from suite.train.objective import Objective


def objective_class(task: Task) -> type[Objective]:
    """The objective that serves a task. RequestError where there is none."""
    for cls in _objectives():
        if isinstance(task, cls.task_class):
            return cls
    raise RequestError(f"task {task.name!r} cannot be trained on; there is no objective for it")


def _objectives() -> Iterator[type[Objective]]:
    """Those of this folder alone: that a class elsewhere derives from one does not make it another's."""
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for cls in vars(module).values():
            if isinstance(cls, type) and issubclass(cls, Objective) and cls.__module__ == module.__name__:
                yield cls
