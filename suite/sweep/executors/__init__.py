"""Who does the work of a run: this process, or many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from suite.errors import RequestError
from suite.sweep.executors.base import Executor
from suite.sweep.executors.local import Local
from suite.sweep.launch import launched
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec


@contextmanager
def open_executor(spec: RunSpec, progress: Progress) -> Iterator[Executor]:
    """The one that a spec names. RequestError where it cannot be had."""
    launch = launched()
    if spec.executor == "local":
        if launch.world > 1:
            progress.note(
                f"{launch.world} processes of torchrun share the evaluation; this one, the first, scores, times and "
                "reports"
            )
        yield Local(leads=launch.rank == 0)
        return
    if launch.world > 1:
        raise RequestError(f"executor {spec.executor!r} has workers of its own; start the command without torchrun")
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
