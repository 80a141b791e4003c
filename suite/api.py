"""What Python users call to run a sweep: composed of the wings, with its report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from suite.pictures.report import draw_preview, draw_report
from suite.sweep.api import Results, run_sweep
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec
from suite.sweep.trackers import Tracker


def run(
    spec: RunSpec | dict[str, Any] | None = None,
    *,
    progress: Progress | None = None,
    track: str | Iterable[str | Tracker] = (),
    report: bool = True,
    preview: Callable[[Path], None] | None = None,
    **values: Any,
) -> Results:
    """Execute a sweep and write its page, tables and plots; what is stored already is not run again.

    `run(task="imagenet", data=DIR, model="deit_small_patch16_224", rates=["r=13"])`; the keys are those of RunSpec.
    With `models=["deit_tiny*", "deit_small*"]` every model is a run in a folder of its own below `out`, with one report
    of all in `out`/report; so is every entry of `runs`, a list of keys and values, for which the keys beside it are
    defaults.
    track: where finished cells and plots are copied to besides ('tensorboard,mlflow'); no part of what is run.
    report: without it nothing is drawn. preview: called with a run's folder when its cells are scored and their times
    are still to come; with a report, its page is there then, and renews itself. RequestError for what cannot be done;
    cells that fail are named by `Results.failed`.
    """
    given = spec.model_dump(exclude_unset=True) if isinstance(spec, RunSpec) else spec or {}

    def show(out: Path) -> None:
        if report:
            draw_preview(out)
        if preview:
            preview(out)

    return run_sweep(
        {**given, **values}, progress=progress, track=track, report=draw_report if report else None, preview=show
    )
