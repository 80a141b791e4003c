"""Curves of a run – a method at its rates – and what they come to against each other, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports.groups import Group
from reports.pareto.points import FLOPS, series_of, valid_points
from reports.pareto.resamples import resampled_scores
from reports.text.wording import is_untrained, reducer_label, training_mark
from suite.stats import Floats, hypervolume, mean_cost_change, mean_gain, percentile_interval, shared

ENOUGH = 0.95  # of the resamples must have a value, or the others would be chosen by the result
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and over which range it is a mean; without a number, why there is none."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    start: float | None = None
    end: float | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Curve:
    """A method (reducer, options, training) of a run at its rates, by ascending cost.

    run: the run's label. cost: (k,) GFLOPs. score: (k,) as people read it, draws: (resamples, k) of it, None without
    outcomes per sample. rows: the frame's. time: (k,) forward time as a share of the unreduced model's, None if not
    measured; spread: (k,) standard deviations of its logarithm, the spread of the unreduced model against itself
    included.
    """

    run: str
    key: Key
    cost: Floats
    score: Floats
    draws: Floats | None
    rows: pd.DataFrame
    time: Floats | None = None
    spread: Floats | None = None

    @property
    def name(self) -> str:
        reducer, options, training = self.key
        return reducer_label(reducer, options, training_mark(training, short=True))

    @property
    def untrained(self) -> bool:
        return is_untrained(self.key[2])


def curves_of(run: str, group: Group, resamples: int) -> list[Curve]:
    """The curves of `group`, of the run that is called `run`, from its undisputed finished cells; those of the floors
    among them."""
    points, _ = valid_points(group, FLOPS)
    draws = resampled_scores(group, resamples)
    curves = []
    for key, rows in series_of(points).items():
        rows = rows.sort_values("gmacs", kind="stable")
        drawn = np.stack([draws[cell] for cell in rows.index], axis=1) if draws else None
        score = group.headline.scale * rows[group.headline.name].to_numpy()
        curves.append(Curve(run, key, rows.gmacs.to_numpy(), score, drawn, rows, *_times(rows, group)))
    return curves


def _times(rows: pd.DataFrame, group: Group) -> tuple[Floats, Floats] | tuple[None, None]:
    """1 / speed-up of every row and the deviation of its logarithm; None where one is unknown or has no interval."""
    name = "whole_speedup" if group.shown.throughput else "speedup"
    value, low, high = (rows[f"{name}{end}"].to_numpy() for end in ("", "_low", "_high"))
    whole = bool(group.shown.throughput)
    aa = [*group.seen("aa_low", whole), *group.seen("aa_high", whole)]
    if not aa or np.isnan([value, low, high]).any():
        return None, None
    own, idle = np.log(high / low) / 2, np.abs(np.log(aa)).max()
    return 1 / value, np.hypot(own, idle) / 1.96


def reference_among(curves: list[Curve], name: str | None) -> Curve | None:
    """The curve that others are compared with: the first of method `name`; without one, tome's, else the first.

    Untrained ones, whose scores are not theirs, only if there is nothing else.
    """
    fair = [curve for curve in curves if not curve.untrained] or curves
    wanted = [curve for curve in fair if curve.key[0] == (name or "tome")]
    if name is not None:
        return next(iter(wanted), None)
    return next(iter(wanted or fair), None)


def volume(curve: Curve, least: float, limit: float) -> Estimate:
    """Mean over the budgets least..limit of the best score that one buys, 0 below the curve's cheapest point.

    The hypervolume up to the reference point (limit, 0), without what lies below `least`, divided by the width.
    """
    if curve.untrained:
        return Estimate(reason="untrained")
    if not limit > least:
        return Estimate(reason="all points cost the same")

    def mean(score: Floats) -> Floats:
        return (hypervolume(curve.cost, score, limit) - hypervolume(curve.cost, score, least)) / (limit - least)

    return _estimate(curve, mean, least, limit)


def gain(curve: Curve, other: Curve) -> Estimate:
    """Mean score above `other` at equal FLOPs, over the FLOPs that both span; a method at one rate spans nothing."""
    start, end = map(float, shared(curve.cost, other.cost))
    if reason := _incomparable(curve, other, start, end, "FLOPs"):
        return Estimate(reason=reason)
    return _estimate(curve, lambda *score: mean_gain(curve.cost, score[0], other.cost, score[1]), start, end, other)


def cost_change(curve: Curve, other: Curve) -> Estimate:
    """Mean change of FLOPs from `other` at equal score, as a fraction, over the scores that both reach."""
    start, end = map(float, shared(curve.score, other.score))
    if reason := _incomparable(curve, other, start, end, "scores"):
        return Estimate(reason=reason)
    change = _estimate(
        curve, lambda *score: mean_cost_change(curve.cost, score[0], other.cost, score[1]), start, end, other
    )
    return change if change.value is not None else Estimate(reason="no scores in common")


def _incomparable(curve: Curve, other: Curve, start: float, end: float, what: str) -> str:
    if curve.untrained or other.untrained:
        return "untrained" if curve.untrained else "the reference is untrained"
    few = next((one for one in (curve, other) if len(one.cost) < 2), None)
    if few is not None:
        return f"{few.name} has one rate"
    return "" if end > start else f"no {what} in common"


def _estimate(
    curve: Curve, value: Callable[..., Floats], start: float, end: float, other: Curve | None = None
) -> Estimate:
    """`value` of the scores, and its middle 95 % over the resamples, if these were drawn and nearly all have it."""
    both = [curve] if other is None else [curve, other]
    found, low, high = float(value(*(one.score for one in both))), None, None
    if np.isnan(found):
        return Estimate(reason="nothing in common")
    draws = [one.draws for one in both if one.draws is not None]
    if len(draws) == len(both):
        drawn = value(*draws)
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn) >= ENOUGH * len(draws[0]):
            low, high = percentile_interval(drawn)
    return Estimate(found, low, high, start, end)
