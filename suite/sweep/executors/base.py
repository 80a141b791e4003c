"""What an executor owes: who puts batches through cells, and who times them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from suite.sweep.lane import Lane
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress


class Executor(Protocol):
    """Does the work of the cells of one or more plans; what becomes of it goes into their runs' folders."""

    @property
    def leads(self) -> bool:
        """Whether this process does what is done once: scores, timings, the report; of those that torchrun starts, the
        first."""

    @property
    def kind(self) -> str | None:
        """Of the devices that do it, 'cpu' or 'cuda', where these are not this process' own; else None."""

    def evaluate(self, lanes: Sequence[Lane], count: Callable[[Progress], None], progress: Progress) -> None:
        """Store outcomes of all samples for all cells, and fail the cells that have none to give.

        count: finds out what the cells cost, and fails those that cannot be counted; to be called once, before the
        evaluation or while it runs elsewhere.
        """

    def paces(self, plan: Plan) -> list[float]:
        """Seconds that the unreduced model takes for an image, of each of the devices."""

    def time(self, lanes: Sequence[Lane], progress: Progress) -> None:
        """Time the cells that have not failed, where that is asked for and was not done."""
