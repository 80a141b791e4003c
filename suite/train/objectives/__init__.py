"""One file per kind of task; a file in this folder serves its kind by being there."""

from __future__ import annotations

import importlib
import pkgutil

from suite.contract.task import Task
from suite.errors import RequestError
from suite.train.objective import Objective


def objective_class(task: Task) -> type[Objective]:
    """The objective that serves a task. RequestError where there is none."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    for cls in Objective.__subclasses__():
        if isinstance(task, cls.task_class):
            return cls
    raise RequestError(f"task {task.name!r} cannot be trained on; there is no objective for it")
