"""Where the decoded pictures of a run are kept, if anywhere."""

from __future__ import annotations

from typing import Any

from suite.contract.task import Task
from suite.sweep.spec import RunSpec
from tasks.reading.images import TimmPreprocessing
from tasks.reading.picture_cache import CachedPreprocessing


def cached(spec: RunSpec, task: Task, preprocessing: Any) -> Any:
    """The preprocessing, with pictures from the folder that the spec names, where there are pictures to keep."""
    if not spec.cache or task.tree is None or not isinstance(preprocessing, TimmPreprocessing):
        return preprocessing
    return CachedPreprocessing(**vars(preprocessing), folder=spec.cache, most=int(spec.cache_size * 1e9))


def check_cache(spec: RunSpec, task: Task, preprocessing: Any) -> list[str]:
    """What the user should know of the folder that the spec names. RequestError where it cannot be used."""
    if not spec.cache:
        return []
    found = cached(spec, task, preprocessing)
    if isinstance(found, CachedPreprocessing):
        return found.check()
    why = "draws its images" if task.tree is None else "cuts its images into windows"
    return [f"cache '{spec.cache}' is not used: task {task.name!r} {why}"]
