"""Run a sweep: plan, execute, hand the results to whoever reports them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reports.frame import load_frame, load_samples
from reports.tables.speeds import speeds_of
from suite.sweep.engine import execute
from suite.sweep.executors import make_executor
from suite.sweep.plan import Plan, make_plan
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec
from suite.sweep.trackers import Tracker, Tracking


@dataclass(frozen=True)
class Results:
    """What a run's folder holds.

    cells: keys of the cells that were asked for; the folder may hold more, of earlier requests. skipped: methods left
    out of rates that they are not defined for.
    """

    out: Path
    cells: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def frame(self) -> pd.DataFrame:
        """One row per cell, tidy; `reports.frame` says what every column is. What is not known is NaN."""
        return load_frame(self.out)

    def speeds(self) -> pd.DataFrame:
        """One row per cell and runtime that it was timed under, indexed by both, with the frame's columns of speed."""
        return speeds_of(self.frame())

    def samples(self, key: str) -> pd.DataFrame:
        """Outcomes and scores of one cell's samples, a row each, in the same order for every cell.

        key: the cell's place in the index of `frame`. RequestError for a cell that is not there.
        """
        return load_samples(self.out, key)

    @property
    def failed(self) -> list[str]:
        """Reasons of the cells that were asked for and failed."""
        frame = self.frame()
        failed = frame[(frame.status == "failed") & frame.index.isin(self.cells)]
        return [f"{' '.join(filter(None, (row.reducer, row.rate)))}: {row.reason}" for row in failed.itertuples()]


def load(out: str | Path) -> Results:
    """What a run stored in folder `out`, without running anything. RequestError if it is no run's folder."""
    return Results(Path(out), tuple(load_frame(out).index))


Report = Callable[[Path, Plan], tuple[list[Path], list[str]]]
"""Draws what a folder holds: the files that it made, and lines that the user should read."""


def run_sweep(
    values: dict[str, Any],
    *,
    progress: Progress | None = None,
    track: str | Iterable[str | Tracker] = (),
    report: Report | None = None,
) -> Results:
    """Execute a sweep; what is stored already is not run again.

    values: the keys of `RunSpec`. track: where finished cells and plots are copied to besides ('tensorboard,mlflow');
    no part of what is run. report: what draws the results; default: nothing does. RequestError for what cannot be done;
    cells that fail are named by `Results.failed`.
    """
    progress = progress or Progress()
    spec = make_spec(values)
    executor, plan = make_executor(spec), make_plan(spec)
    for line in plan.notes:
        progress.note(line)
    for line in plan.skipped:
        progress.note(f"left out: {line}")
    out = Path(plan.spec.out)
    with closing(Tracking(track, plan.spec.model_dump(mode="json"), out, progress.note)) as tracking:
        execute(plan, progress, executor)
        results = Results(out, tuple(plan.methods), tuple(plan.skipped))
        files, notes = report(out, plan) if report else ([], [])
        for line in notes:
            progress.note(line)
        if tracking.alive:
            shown = results.frame().loc[list(results.cells)]
            tracking.hand_over(shown, [file for file in files if file.suffix == ".png"])
    return results
