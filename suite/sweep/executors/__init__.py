"""Who does the work of a run: this process, or many."""

from __future__ import annotations

from suite.sweep.executors.base import Executor
from suite.sweep.executors.local import Local
from suite.sweep.spec import RunSpec


def make_executor(spec: RunSpec) -> Executor:
    """The one that a spec names."""
    return Local(spec.device)
