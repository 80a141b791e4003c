"""Which methods are dominated: significantly worse than a floor that costs no more, in FLOPs and, apart, in time.

A floor looks at no token's worth: a smaller image, patches at random or by their places, a smaller model as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports.groups import Group, groups
from reports.marks.floor_rows import DECODED, decoded_rate
from reports.page.outcomes import LABELS, MASKS, SAME, Outcomes, load_outcomes, same_samples
from reports.pareto.points import FLOPS, Plot, bounds, is_noisy, plots_of, valid_points
from reports.pareto.style import FLOORS, UNREDUCED
from reports.text.wording import is_untrained, known, reducer_label
from suite.contract.baseline import BASELINE
from suite.stats import holm, mcnemar, resamples_for, swap_test

LEVEL = 0.05
COLUMNS = {True: "dominated_time", False: "dominated_flops"}
"""Of the frame, by whether the cost is a time: the floor that a row is dominated by, '' where by none."""


@dataclass(frozen=True)
class Point:
    """A finished cell on one axis of cost.

    series: its run's folder, and what it is a rate of. model, side: whose cell it is, on images of which side; None:
    the model's own. cost: (best, worst) as far as it is known, the lower the cheaper, of a noisy run's times anything;
    in_run: the same beside cells of its run, where what is measured in common rounds is known better, as a share of the
    unreduced model's.
    """

    key: str
    name: str
    series: tuple[str, ...]
    model: str
    side: int | None
    floor: bool
    cost: tuple[float, float]
    in_run: tuple[float, float]


def mark_dominated(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its columns `COLUMNS` filled; n/a stays where no floor costs as little.

    Every method at a rate is compared with the dearest rate of each floor that costs no more, whatever its score: in
    time, one that is no slower beyond both intervals. These are the wider the noisier the machine was, and within a run
    noise is no method's, as rounds time all cells in drawn order; times of several runs are compared where neither is
    noisy. Tests are one-sided and paired by samples: McNemar's exact one
    for shares, else of outcomes swapped; Holm's procedure over all of an axis on the same samples.
    """
    marked = frame.copy()
    for parts in same_samples(list(groups(frame))):
        outcomes = load_outcomes(parts)
        if outcomes is None or outcomes.kind == SAME:  # of random weights, and of what is not stored by samples
            continue
        for timed in (False, True):
            for key, floor in dominated(list(_points(parts, timed)), outcomes).items():
                marked.loc[key, COLUMNS[timed]] = floor
    return marked


def dominated(points: Sequence[Point], outcomes: Outcomes) -> dict[str, str]:
    """Key -> the best floor that dominates it, '' for none, of every method that a floor can be compared with."""
    placed = {key: place for place, key in enumerate(outcomes.keys)}
    points = [point for point in points if point.key in placed]
    pairs = [(one, floor) for one in points if not one.floor for floor in _rivals(one, points)]
    score = outcomes.metric.sign * _scores(outcomes)
    worse = [score[placed[one.key]] < score[placed[floor.key]] for one, floor in pairs]
    p = [
        _p_of_worse(outcomes, placed[one.key], placed[floor.key], len(pairs)) if lower else 1.0
        for (one, floor), lower in zip(pairs, worse, strict=True)
    ]
    found = {one.key: "" for one, _ in pairs}
    sure = [pair for pair, adjusted in zip(pairs, holm(p), strict=True) if adjusted <= LEVEL]
    for one, floor in sorted(sure, key=lambda pair: score[placed[pair[1].key]]):  # the best floor last
        found[one.key] = _called(floor, one)
    return found


def _points(parts: Sequence[Group], timed: bool) -> Iterator[Point]:
    """Methods and floors of all groups; of times, of those that were measured alike."""
    like = [str([parts[0].seen(name) for name in ("device", "runtime", "timed_batch_size")])]
    for part in parts:
        plot = plots_of(part)[1] if timed else FLOPS
        circumstances = str([part.seen(name) for name in ("device", "runtime", "timed_batch_size")])
        if timed and circumstances not in like:
            continue
        yield from _points_of(part, plot)


def _points_of(part: Group, plot: Plot) -> Iterator[Point]:
    rows, _ = valid_points(part, plot)
    sign = 1 if plot.fewer_is_better else -1
    beside = bounds(rows, plot)
    if plot.is_speed:
        name = "whole_speedup" if plot.whole else "speedup"
        beside = rows[f"{name}_low"].fillna(rows[name]), rows[f"{name}_high"].fillna(rows[name])
    for row, *ends in zip(rows.itertuples(), *bounds(rows, plot), *beside, strict=True):
        if not is_untrained(row.training):
            series = (str(part.out), row.reducer, row.options, row.training)
            low, high, *others = (sign * end for end in ends)
            cost = (-math.inf, math.inf) if is_noisy(part, plot) else (min(low, high), max(low, high))
            in_run = min(others), max(others)
            floor = row.reducer in (*FLOORS, BASELINE)
            yield Point(str(row.Index), _name(row), series, part.model, part.image_size, floor, cost, in_run)


def _name(row: Any) -> str:
    if row.reducer == BASELINE:
        return f"{row.model}{UNREDUCED}"
    rate = next((rate for rate in (row.resolved_rate, row.rate) if known(rate) and rate), "")
    return f"{reducer_label(row.reducer, row.options)} {rate}".strip()


def _called(floor: Point, one: Point) -> str:
    """The floor's name beside a method: its own model on other images is that, resized."""
    if floor.series[1] != BASELINE or floor.model != one.model:
        return floor.name
    return f"{reducer_label(*DECODED)} {decoded_rate(floor.side)}"


def _rivals(one: Point, points: Sequence[Point]) -> list[Point]:
    """Of each floor the dearest point that surely costs no more: floors of the same run, other models and other sizes
    of the images unreduced."""
    dearest: dict[tuple[str, ...], tuple[tuple[float, float], Point]] = {}
    for floor in points:
        own = floor.series[0] == one.series[0]
        other = (floor.model, floor.side) != (one.model, one.side)
        fits = floor.floor and (other if floor.series[1] == BASELINE else own)
        cost, most = (floor.in_run, one.in_run[0]) if own else (floor.cost, one.cost[0])
        if fits and cost[1] <= most and (floor.series not in dearest or cost > dearest[floor.series][0]):
            dearest[floor.series] = cost, floor
    return [floor for _, floor in dearest.values()]


def _scores(outcomes: Outcomes) -> np.ndarray:
    """(C,) of the cells."""
    if outcomes.kind == MASKS:
        made_of = outcomes.metric.made_of
        return np.array([made_of.score(addends) for addends in made_of.addends(*outcomes.tables or ())])
    means: np.ndarray = np.nan_to_num(outcomes.score).mean(axis=1)
    return means


def _p_of_worse(outcomes: Outcomes, place: int, floor: int, tests: int) -> float:
    """One-sided p-value that the cell at a place is no worse than a floor on the same samples."""
    if outcomes.kind == LABELS:
        right, other = outcomes.score[place] > 0, outcomes.score[floor] > 0
        return float(mcnemar(np.count_nonzero(right & ~other), np.count_nonzero(other & ~right), "less"))
    made_of, sign = outcomes.metric.made_of, outcomes.metric.sign
    if outcomes.tables is None:
        first, second = np.nan_to_num(outcomes.score[[place, floor]])[..., None]
    else:
        first, second = made_of.addends(*(outcomes.tables[i] for i in (place, floor)))
    statistic = made_of.statistic(len(outcomes.ids))
    resamples = resamples_for(LEVEL, tests)
    return swap_test(first, second, lambda sums: sign * statistic(sums), "less", resamples=resamples)
