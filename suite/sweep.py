"""Run a sweep from Python: plan, execute, report."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reports.frame import load_frame, load_samples
from reports.write import write_report
from suite.engine import execute
from suite.exhibits import make_exhibits
from suite.plan import make_plan
from suite.progress import Progress
from suite.spec import RunSpec, make_spec
from suite.trackers import Tracker, Tracking


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


def run(
    spec: RunSpec | dict[str, Any] | None = None,
    *,
    progress: Progress | None = None,
    track: str | Iterable[str | Tracker] = (),
    report: bool = True,
    **values: Any,
) -> Results:
    """Execute a sweep and write its page, tables and plots; what is stored already is not run again.

    `run(task="imagenet", data=DIR, model="deit_small_patch16_224", rates=["r=13"])`; the keys are those of RunSpec.
    track: where finished cells and plots are copied to besides ('tensorboard,mlflow'); no part of what is run.
    report: without it nothing is drawn. RequestError for what cannot be done; cells that fail are named by
    `Results.failed`.
    """
    given = spec.model_dump(exclude_unset=True) if isinstance(spec, RunSpec) else spec or {}
    spec = make_spec({**given, **values})
    progress = progress or Progress()
    plan = make_plan(spec)
    for line in plan.notes:
        progress.note(line)
    for line in plan.skipped:
        progress.note(f"left out: {line}")
    out = Path(plan.spec.out)
    with closing(Tracking(track, plan.spec.model_dump(mode="json"), out, progress.note)) as tracking:
        execute(plan, progress)
        results = Results(out, tuple(plan.asks), tuple(plan.skipped))
        files: list[Path] = []
        if report:
            make_exhibits(out, plan)
            files, notes = write_report(out)
            for line in notes:
                progress.note(line)
        tracking.finished(results.frame().loc[list(results.cells)], [file for file in files if file.suffix == ".png"])
    return results
