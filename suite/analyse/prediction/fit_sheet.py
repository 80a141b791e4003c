"""The fit as people and programs read it: its parameters, its errors, and published beside predicted speeds."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from reports.text.wording import NO_DATA
from suite.analyse.prediction.figure import draw_fit
from suite.analyse.prediction.fit import Case, fit, rows_of, trace_cases
from suite.analyse.prediction.published import CIRCUMSTANCES, published_speeds
from suite.analyse.sheet import Sheet
from suite.measure.prediction.cost import Reach
from suite.measure.prediction.fitted import COVERED, FITTED, HELD_OUT, MERGER, Errors, Fit, errors
from suite.measure.prediction.gpus import GPUS
from suite.store.files import write_json
from suite.sweep.progress import Progress

NAME = "fitted"  # of the file that a fit is kept in
PARTS = (FITTED, HELD_OUT, MERGER)
MERGERS = (
    "Mergers are predicted from our kernels and were measured with their authors' code, which launches others: their "
    "errors hold that difference, too, and none of them is fitted."
)


def fit_published(folder: Path, progress: Progress) -> Sheet:
    """Fit the parameters on published speeds, and keep them in `folder` as the suite keeps its own."""
    speeds, left = published_speeds()
    cases = trace_cases(speeds, partial(progress.steps, "tracing forwards", name=lambda speed: speed.way.model))
    placed = [case for case in cases if case.speed.circumstances.gpu]
    reach = fit(placed)
    found = Fit(date.today().isoformat(), reach, rows_of(placed, reach))
    write_json(folder / f"{NAME}.json", {"date": found.date, "reach": asdict(reach), "rows": found.rows})
    unplaced = [unplaced_row(case, reach) for case in cases if not case.speed.circumstances.gpu and case.speed.speedup]
    return fit_sheet(found, unplaced, left)


def unplaced_row(case: Case, reach: Reach) -> dict[str, Any]:
    """A speed-up whose GPU is not named, and the least and largest of what all GPUs would give."""
    speed = case.speed
    ratios = [case.speedup(reach, gpu) for gpu in GPUS]
    return {
        "table": speed.table, "line": speed.line, "part": "GPU not named", "model": speed.way.model,
        "reducer": speed.way.reducer, "published_speedup": speed.speedup, "least": min(ratios), "most": max(ratios),
    }  # fmt: skip


def fit_sheet(found: Fit, unplaced: list[dict[str, Any]], left: dict[str, int]) -> Sheet:
    """Median |log ratio| of predicted over published, GPU by GPU; the records are all speeds."""
    gpus = list(dict.fromkeys(row["gpu"] for row in found.rows))
    lines = []
    for gpu in (*gpus, ""):
        rows = [row for row in found.rows if gpu in ("", row["gpu"])]
        lines.append([GPUS[gpu].title if gpu else "all", *(cell for part in PARTS for cell in _errors(rows, part))])
    for line, gpu in zip(lines, (*gpus, "")):
        alike = [row for row in found.rows if gpu in ("", row["gpu"]) and row["part"] != MERGER]
        line.append(median_error(errors(alike, "published", "unseen")))
    headers = [f"{part}: {what}" for part in PARTS for what in ("im/s", "speed-up")]
    parameters = ", ".join(f"{name} {value:g}" for name, value in asdict(found.reach).items())
    notes = [
        "Median |log(predicted / published)| (number of speeds). Fitted and held out: unreduced models and pruners; a "
        "hash of GPU and shape decides which. Unseen: predicted without any speed of that GPU.",
        MERGERS,
        f"Parameters, fitted {found.date}: {parameters}.",
        *(f"{', '.join(names)}: {taken}." for taken, names in taken_of_tables().items()),
        *([_unplaced_note(unplaced)] if unplaced else []),
        *(f"Not predicted: {number} speeds: {why}." for why, number in left.items()),
    ]
    about = {"date": found.date, "reach": asdict(found.reach), "covered": COVERED, "left_out": left}
    return Sheet(
        "fit", "Predicted beside published speeds: median |log ratio|", about, [*found.rows, *unplaced],
        ("GPU", *headers, "unseen: im/s"), lines, tuple(notes), partial(draw_fit, found.rows, unplaced),
    )  # fmt: skip


def taken_of_tables() -> dict[str, list[str]]:
    """What tables do not print and is taken to be so -> their names."""
    found: dict[str, list[str]] = {}
    for name, how in CIRCUMSTANCES.items():
        if how.taken:
            found.setdefault(how.taken, []).append(name)
    return found


def _errors(rows: list[dict[str, Any]], part: str) -> list[str]:
    of = [row for row in rows if row["part"] == part]
    return [
        median_error(errors(of, "published", "predicted")),
        median_error(errors(of, "published_speedup", "predicted_speedup")),
    ]


def median_error(found: Errors) -> str:
    sizes = [abs(error) for _, error in found]
    return f"{median(sizes):.3f} ({len(sizes)})" if sizes else NO_DATA


def _unplaced_note(rows: list[dict[str, Any]]) -> str:
    ratios = [(row["published_speedup"], row["least"], row["most"]) for row in rows]
    off = [max(0.0, math.log(least / ratio), math.log(ratio / most)) for ratio, least, most in ratios]
    inside = sum(not distance for distance in off)
    return (
        f"GPU not named, shown and not fitted: of {len(rows)} speed-ups, {inside} lie within what the GPUs would give; "
        f"the others are off by a median of {median([d for d in off if d] or [0]):.3f}."
    )
