"""What a lower precision does to a method: its score and its answers beside those in float32, sample by sample.

A reducer decides by comparing numbers, and rounding decides close cases otherwise; the drift of the unreduced model
stands beside it. Nothing else changes: rates are solved, and tokens planned, alike in all precisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reports.frame import load_samples
from reports.text.wording import NO_DATA, percent, score, significant
from suite.analyse.figures import draw_changes
from suite.analyse.seed_interval import Estimate
from suite.analyse.sheet import Sheet
from suite.contract.metric import Metric
from suite.errors import RequestError, unknown
from suite.gate.outcomes import pair_up
from suite.gate.paired_difference import PairedDifference, measure_difference
from suite.gate.run_side import run_side
from suite.gate.side import Entry, Side
from suite.measure.precision import TF32, check_precision, exact_float32
from suite.stats import paired_agreement, wilson_interval
from suite.sweep.api import run_sweep
from suite.sweep.plan import resolve_device
from suite.sweep.progress import Progress

EXACT = "fp32"
LOWER = ("bf16", "fp16", TF32)
LEVEL = 0.05


@dataclass(frozen=True)
class Drift:
    """A method in a precision beside itself in float32.

    difference: of the task's first metric. changed: share of the samples that came to another answer.
    """

    method: str
    rate: str
    precision: str
    difference: PairedDifference
    changed: Estimate


def measure_drift(values: Mapping[str, Any], precisions: Sequence[str], out: Path, progress: Progress) -> Sheet:
    """Run the cells of a request in float32 and in each of `precisions`, and compare them pairwise.

    values: keys of a `RunSpec`; its precision, out and speed are decided here. out: holds a run per precision, and what
    is stored there is not run again.

    Raises:
        RequestError: what cannot be run, in float32 or in all of `precisions`; a precision that there is none of.
    """
    device = resolve_device(values.get("device") or "auto")
    lacking: dict[str, str] = {}
    sides: dict[str, tuple[list[Entry], Side]] = {}
    failed: list[str] = []
    for precision in precisions:
        if precision not in LOWER:
            raise unknown("precision to compare with float32", precision, LOWER)
        try:
            check_precision(precision, device)
        except RequestError as error:
            lacking[precision] = str(error)
    for precision in dict.fromkeys((EXACT, *precisions)):
        if precision in lacking:
            continue
        progress.note(f"in {precision}")
        request = {**values, "precision": precision, "speed": False, "out": str(out / precision)}
        with exact_float32():  # the reference is what it is called; tf32 says so itself
            results = run_sweep(request, progress=progress)
        failed += [f"{precision}: {reason}" for reason in results.failed]
        side = run_side(results.out, precision)
        sides[precision] = [entry for entry in side.entries if entry.key in results.cells], side
    reference, exact = sides.pop(EXACT)
    found = [
        drift
        for entry in reference
        for precision, (entries, side) in sides.items()
        if (drift := drift_of(entry, entries, exact, side, out, precision))
    ]
    return _sheet(exact, reference, found, lacking, failed)


def drift_of(
    exact: Entry, entries: Sequence[Entry], exact_side: Side, side: Side, out: Path, precision: str
) -> Drift | None:
    """The cell of `entries` that measures what `exact` does, beside it; None where one of them is not finished."""
    of = (exact.method, exact.rate)
    twin = next((entry for entry in entries if (entry.method, entry.rate) == of), None)
    if twin is None or twin.status != "done" or exact.status != "done":
        return None
    metric = exact_side.shown.metrics[0]
    pairs = [one for one in pair_up(twin.read(), exact.read(), side.shown) if one.metric.name == metric.name]
    if not pairs:
        return None
    answers = [
        load_samples(out / name, entry.key).set_index("id")["prediction"]
        for name, entry in ((EXACT, exact), (precision, twin))
    ]
    ids = answers[0].index.intersection(answers[1].index)
    same, count = paired_agreement(*(one.loc[ids] for one in answers))
    low, high = wilson_interval(count - same, count) or (0.0, 1.0)
    changed = Estimate(1 - same / count, low, high, count)
    return Drift(exact.method, exact.rate, precision, measure_difference(pairs[0], LEVEL), changed)


def _sheet(
    exact: Side, reference: Sequence[Entry], found: Sequence[Drift], lacking: Mapping[str, str], failed: list[str]
) -> Sheet:
    metric = exact.shown.metrics[0]
    by = {(drift.method, drift.rate, drift.precision): drift for drift in found}
    there = {drift.precision for drift in found}.union(lacking)
    precisions = [name for name in LOWER if name in there]
    rows = [(entry, name) for entry in reference for name in precisions]
    lines = [_line(entry, name, by.get((entry.method, entry.rate, name)), metric) for entry, name in rows]
    records = [_record(entry, name, by.get((entry.method, entry.rate, name)), metric) for entry, name in rows]
    notes = (
        f"{metric.label} in a precision less that in float32, on the same samples, with its 95 % interval; changed: "
        "samples that came to another answer [95 %]. Token counts are the same in all precisions, unless the image "
        "decides them.",
        *(f"{name} is {NO_DATA}: {why}." for name, why in lacking.items()),
    )
    spec = exact.spec
    samples = max((drift.difference.samples for drift in found), default=0)
    heading = f"Score drift against float32: {spec['task']} · {spec['model']} · n = {samples}"
    about = {"task": spec["task"], "model": spec["model"], "metric": metric.name, "lacking": dict(lacking)}
    headers = ("Method", "Rate", "Precision", f"{metric.label}, fp32", metric.label, "Difference", "Changed (%)")
    labels = [entry.label for entry in reference]
    shares = {
        name: {f"{one.method} {one.rate}".strip(): one.changed for one in found if one.precision == name}
        for name in precisions
        if name not in lacking
    }
    draw = partial(draw_changes, labels, shares, heading, "Answers that changed (%)")
    return Sheet("drift", heading, about, records, headers, lines, notes, draw, failed, names=3)


def _line(entry: Entry, precision: str, drift: Drift | None, metric: Metric) -> list[str]:
    named = [entry.method, entry.rate or "–", precision]
    if drift is None:
        return [*named, *[NO_DATA] * 4]
    of, scale = drift.difference, metric.scale
    nan = float("nan")
    base, new = (score(value, nan, nan, scale=scale, decimals=metric.decimals) for value in (of.base, of.new))
    apart = [significant(scale * value, 2) for value in (of.difference, of.low, of.high)]
    changed = [percent(value) for value in (drift.changed.value, drift.changed.low, drift.changed.high)]
    return [*named, base, new, *(f"{value} [{low}, {high}]" for value, low, high in (apart, changed))]


def _record(entry: Entry, precision: str, drift: Drift | None, metric: Metric) -> dict[str, Any]:
    of, changed = (drift.difference, drift.changed) if drift else (None, None)
    return {
        "method": entry.method, "rate": entry.rate, "resolved_rate": entry.resolved_rate, "precision": precision,
        "metric": metric.name, **{name: getattr(of, name, None) for name in ("samples", "base", "new")},
        **{name: getattr(of, name, None) for name in ("difference", "low", "high", "p", "differing")},
        "changed": getattr(changed, "value", None),
        **{f"changed_{end}": getattr(changed, end, None) for end in ("low", "high")},
    }  # fmt: skip
