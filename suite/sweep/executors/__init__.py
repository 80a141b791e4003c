"""Who does the work of a run: this process, or many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from suite.errors import RequestError
from suite.sweep.executors.base import Executor
from suite.sweep.executors.local import Local
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec


@contextmanager
def open_executor(spec: RunSpec, progress: Progress) -> Iterator[Executor]:
    """The one that a spec names. RequestError where it cannot be had."""
    if spec.executor == "local":
        yield Local()
        return
    try:
        from suite.sweep.executors.ray.driver import Ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise RequestError(
            f"executor {spec.executor!r}: Ray is not installed; pip install 'reducerbench[ray]'"
        ) from error
    ray = Ray(spec, progress)
    try:
        yield ray
    finally:
        ray.close()
