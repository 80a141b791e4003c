"""Run sweeps: plan, execute, hand the results to whoever reports them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reports.frame import load_frame, load_samples
from reports.marks.marked import marked
from reports.tables.speeds import speeds_of
from suite.store.pulse import Pulse
from suite.store.study import StudyFolder, failures_in
from suite.sweep.executors import open_executor
from suite.sweep.launch import launched
from suite.sweep.partial_table import partial_table
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress
from suite.sweep.study import execute_plans, make_plans, make_study
from suite.sweep.trackers import Tracker, Tracking


@dataclass(frozen=True)
class Results:
    """What the folder of a run, or of a study of several, holds.

    cells: keys of the cells that were asked for; the folder may hold more, of earlier requests. skipped: methods left
    out of rates that they are not defined for, and models that a wildcard named and cannot be used. unrun: runs that
    were asked for and could not be run, or not to their end, and why.
    """

    out: Path
    cells: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    unrun: tuple[str, ...] = ()

    def frame(self) -> pd.DataFrame:
        """One row per cell, tidy; `reports.frame` says what every column is. What is not known is NaN."""
        return marked(load_frame(self.out))

    def speeds(self) -> pd.DataFrame:
        """One row per cell and runtime that it was timed under, indexed by both, with the frame's columns of speed."""
        return speeds_of(load_frame(self.out))

    def samples(self, key: str) -> pd.DataFrame:
        """Outcomes and scores of one cell's samples, a row each, in the same order for every cell of a run.

        key: the cell's place in the index of `frame`. RequestError for a cell that is not there.
        """
        return load_samples(self.out, key)

    @property
    def failed(self) -> list[str]:
        """Reasons of what was asked for and failed: runs, and cells, of several runs with the name of theirs."""
        frame = load_frame(self.out)
        failed = frame[(frame.status == "failed") & frame.index.isin(self.cells)]
        return [*self.unrun, *(f"{_label(frame, row)}: {row.reason}" for row in failed.itertuples())]

    @property
    def unfinished(self) -> list[str]:
        """What was asked for, has not failed, and is not complete: when a run has ended, somebody removed it."""
        frame = load_frame(self.out)
        left = frame[~frame.status.isin(("done", "failed")) & frame.index.isin(self.cells)]
        said = [f"{_label(frame, row)}: {row.samples} of {row.expected} images stored" for row in left.itertuples()]
        return said + [f"cell {key}: not stored" for key in self.cells if key not in frame.index]


def _label(frame: pd.DataFrame, row: Any) -> str:
    """A cell's method and rate, of several runs with the name of its run."""
    run = [Path(frame.attrs["context"][row.Index]["out"]).name + ":"] if len(frame.attrs["runs"]) > 1 else []
    return " ".join(filter(None, (*run, row.reducer, row.rate)))


def load(out: str | Path) -> Results:
    """What a run, or the runs of a study, stored in folder `out`, without running anything. RequestError if it is no
    such folder."""
    return Results(Path(out), tuple(load_frame(out).index), unrun=_named(failures_in(out)))


Report = Callable[[Path, Plan | None], tuple[list[Path], list[str]]]
"""Draws what a folder holds, by the plan that was executed there; of a study, None. Gives the files that it made, and
lines that the user should read."""
Preview = Callable[[Path], None]
"""Shows what a run's folder holds before its times are measured."""


def run_sweep(
    values: dict[str, Any],
    *,
    progress: Progress | None = None,
    track: str | Iterable[str | Tracker] = (),
    report: Report | None = None,
    preview: Preview | None = None,
) -> Results:
    """Execute a sweep, or several; what is stored already is not run again.

    values: the keys of `RunSpec`, `models` in place of `model`, and `runs`. track: where finished cells and plots are
    copied to besides ('tensorboard,mlflow'); no part of what is run. report: what draws the results; default: nothing
    does. preview: what shows a run as soon as it is scored, where its times are still to come. RequestError for what
    cannot be done; what fails is named by `Results.failed`. Of the processes that torchrun starts, all evaluate, and
    the first does the rest.
    """
    progress, study = progress or Progress(), make_study(values)
    if launched().rank:
        progress, track, report, preview = Progress(progress.console, quiet=True), (), None, None
    with (
        open_executor(study.spec, progress) as executor,
        closing(Tracking(track, study.config, study.out, progress.note)) as tracking,
        closing(Pulse(study.out)) as pulse,
    ):
        if executor.leads:
            progress.beat, progress.draw = pulse.beat, partial_table
        plans = make_plans(study, executor.kind)
        for line in (*plans.notes, *(f"left out: {line}" for line in plans.skipped)):
            progress.note(line)
        if study.several:
            names = [member.name for member in study.members if member.name in {**plans.by_name, **plans.failed}]
            for line in StudyFolder(study.out).add(names, plans.failed):
                progress.note(line)
        files: list[Path] = []
        notes: list[str] = []
        failed = dict(plans.failed)
        for name, why in failed.items():
            progress.failed(name, why)
        for name, plan, why in execute_plans(plans.by_name, progress, executor, preview):
            if why:
                failed[name] = why
            elif report:
                files, notes = report(Path(plan.spec.out), plan)
        if study.several:
            StudyFolder(study.out).add(names, failed)
            files, notes = report(study.out, None) if report else ([], [])
        results = Results(study.out, plans.cells, tuple(plans.skipped), _named(failed))
        for line in notes:
            progress.note(line)
        if tracking.alive:
            frame = load_frame(results.out)
            asked = [key for key in results.cells if key in frame.index]
            tracking.hand_over(frame.loc[asked], [file for file in files if file.suffix == ".png"])
    return results


def _named(failed: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}: {why}" for name, why in failed.items())
