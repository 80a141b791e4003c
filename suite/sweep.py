"""Run a sweep from Python: plan, execute, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reports.frame import load_frame
from reports.write import write_report
from suite.engine import execute
from suite.plan import make_plan
from suite.progress import Progress
from suite.spec import RunSpec, make_spec


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
        """One row per cell, as `reports.frame.load_frame` describes it."""
        return load_frame(self.out)

    @property
    def failed(self) -> list[str]:
        """Reasons of the cells that were asked for and failed."""
        frame = self.frame()
        failed = frame[(frame.status == "failed") & frame.index.isin(self.cells)]
        return [f"{' '.join(filter(None, (row.reducer, row.rate)))}: {row.reason}" for row in failed.itertuples()]


def run(spec: RunSpec | dict[str, Any] | None = None, *, progress: Progress | None = None, **values: Any) -> Results:
    """Execute a sweep and write its tables and plots; what is stored already is not run again.

    `run(task="imagenet", data=DIR, model="deit_small_patch16_224", rates=["r=13"])`; the keys are those of RunSpec.
    RequestError for what cannot be done; cells that fail are named by `Results.failed`.
    """
    given = spec.model_dump(exclude_unset=True) if isinstance(spec, RunSpec) else spec or {}
    spec = make_spec({**given, **values})
    progress = progress or Progress()
    plan = make_plan(spec)
    for line in plan.notes:
        progress.note(line)
    for line in plan.skipped:
        progress.note(f"left out: {line}")
    execute(plan, progress)
    results = Results(Path(plan.spec.out), tuple(plan.asks), tuple(plan.skipped))
    _, notes = write_report(results.out)
    for line in notes:
        progress.note(line)
    return results
