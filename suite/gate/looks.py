"""Looking at more and more samples until the gate can tell, at the error rate of one look."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import norm

from suite.contract.metric import TaskReport
from suite.errors import RequestError
from suite.gate.pairing import Match, same_cost
from suite.gate.report import rows_of
from suite.gate.side import Side
from suite.gate.verdict import CANNOT_TELL, DISPUTED, MARGIN, REGRESSED, Row, judge, planned, samples_needed
from suite.stats import look_levels, look_sizes
from suite.stats.power import POWER
from suite.sweep.plan import make_task
from suite.sweep.spec import make_spec
from tasks import task_class

MOST_DRAWN = 16_000
ASSUMED = 0.02
"""Share of samples that differ, as long as none has been seen."""


@dataclass(frozen=True)
class Look:
    """samples: that it sees, None for all that there are. level: of its tests. values: keys of a RunSpec for it."""

    number: int
    of: int
    samples: int | None
    level: float
    values: Mapping[str, Any]


def one_look(alpha: float) -> list[Look]:
    """At all samples that there are."""
    return [Look(1, 1, None, alpha, {})]


def plan_looks(values: Mapping[str, Any], alpha: float, most: int | None) -> list[Look]:
    """Looks at more and more of a task's data: of drawn samples more are drawn, of given ones more are read.

    One look at all where `values` say which samples are used. most: samples at the last look.

    Raises:
        RequestError: `most` is no number of samples, or the data cannot be used.
    """
    task = task_class(values.get("task") or "scenes")
    options = dict(values.get("task_options") or {})
    if most is not None and most < 1:
        raise RequestError(f"--max-samples {most}: a verdict needs samples; give 1 or more")
    if values.get("limit") or (task.drawn and task.drawn in options):
        if most is not None:
            raise RequestError("--max-samples and a fixed number of samples exclude each other; leave one out")
        return one_look(alpha)
    keys: list[dict[str, Any]]
    if task.drawn:
        sizes = look_sizes(most or MOST_DRAWN)
        keys = [{"task_options": {**options, task.drawn: size}} for size in sizes]
    else:
        there = len(make_task(make_spec(dict(values))).samples)
        sizes = look_sizes(min(most or there, there))
        keys = [{"leading": size} for size in sizes]
    levels = look_levels(sizes, alpha)
    return [Look(i, len(sizes), *look) for i, look in enumerate(zip(sizes, levels, keys, strict=True), start=1)]


def expected(looks: Sequence[Look], shown: TaskReport, points: float | None, alpha: float) -> str:
    """What is looked at, and how many samples the margin needs, before anything has been seen."""
    sizes = ", ".join(str(look.samples) for look in looks if look.samples)
    said = f"looks at {sizes} samples until it can tell" if sizes else "one look at the samples that there are"
    if not shown.metrics[0].binary:
        return f"{said}; how many the margin needs is known after the first"
    margin = MARGIN if points is None else points / shown.metrics[0].scale
    factor = ((norm.isf(alpha) + norm.ppf(POWER)) / margin) ** 2
    return (
        f"{said}; if {ASSUMED:.0%} of them differ, an equal method needs about {ASSUMED * factor:.0f} "
        f"(share * ((z({1 - alpha:g}) + z({POWER:g})) / {margin:g})^2)"
    )


def decide(
    looks: Iterable[Look],
    see: Callable[[Look, Collection[str] | None], tuple[Side, Side]],
    alpha: float,
    points: float | None,
    tolerance: float,
    note: Callable[[str], None],
) -> tuple[list[Row], Look]:
    """The rows with their verdicts, each as of the look that decided it, and the last look.

    see(look, rates): NEW and BASE at that look; only at `rates`, where these are given. What passed is not looked at
    again: each row passes wrongly with probability at most alpha. It ends with the first row that regressed, or whose
    cost is disputed.
    """
    settled: list[Row] = []
    order: list[str] = []
    unknown: set[str] = set()  # rates of the rows that cannot be told yet
    rates: set[str] | None = None
    for look in looks:
        new, base = see(look, rates)
        matches = same_cost(new, base, tolerance)
        if order:  # a cell of NEW that is compared may have a rate of its own, at which nothing is open
            matches = [match for match in matches if match.base is None or match.base.rate in unknown]
        seen = rows_of(matches, new, base, look.level, points, others=len(settled))
        found = judge(seen, look.level, len(settled))
        order = order or [rate_of(row.match) for row in found]
        undecided = [row for row in found if row.verdict == CANNOT_TELL and row.contrast is not None]
        lost = any(row.verdict in (REGRESSED, DISPUTED) for row in found)
        if lost or not undecided or look.number == look.of:
            break
        settled += [row for row in found if row not in undecided]
        unknown = {rate_of(row.match) for row in undecided}
        rates = unknown | {row.match.new.rate for row in undecided if row.match.new}
        note(_so_far(look, undecided, len(order), alpha))
    rows = sorted([*settled, *planned(found, alpha)], key=lambda row: order.index(rate_of(row.match)))
    return rows, look


def rate_of(match: Match) -> str:
    """What was asked for, of BASE's cell where there is one: it decides what NEW's costs."""
    return next((entry.rate for entry in (match.base, match.new) if entry), "")


def _so_far(look: Look, undecided: Sequence[Row], rows: int, alpha: float) -> str:
    differing = max(row.contrast.differing / row.contrast.samples for row in undecided if row.contrast)
    needed = samples_needed(planned(undecided, alpha))
    about = "more samples alone may not tell" if needed is None else f"about {needed} samples would tell"
    return (
        f"look {look.number} of {look.of}: {look.samples} samples, {len(undecided)} of {rows} rows cannot be told yet; "
        f"{differing:.1%} differ, {about}"
    )


def describe_look(look: Look) -> Iterator[str]:
    """How the verdict came about, where there was more than one look to come by."""
    if look.of > 1:
        spent = "their levels add up to alpha (Lan and DeMets)"
        yield f"decided at look {look.number} of {look.of}; {spent}"
