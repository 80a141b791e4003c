"""Whether methods keep their order when measured speed takes the place of FLOPs, beyond what noise would change."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from zlib import crc32

import numpy as np

from reports.pareto.curves import Curve
from suite.stats import Floats, concordance, mean_cost_change, mean_gain

Drawn = tuple[Floats, Floats]  # (k,) as measured; (resamples, k) in all resamples, or (k,) where these have no say
DOUBT = 0.025  # of the resamples may say otherwise where an order is called decided: one end of a 95 % interval


@dataclass(frozen=True)
class Ranks:
    """Places of the methods on one axis, 1 the best, and between which places the noise leaves them (inclusive).

    place: None for a method that cannot be compared with all others.
    """

    place: list[int | None]
    best: list[int]
    worst: list[int]


@dataclass(frozen=True)
class RankChange:
    """Of methods that were both counted and timed.

    tau: Kendall's tau of the two orders over the pairs that can be compared. turned: (a, b) where a is ahead of b by
    FLOPs and b ahead of a by time, both beyond the noise. undecided: pairs whose order one of the axes leaves open.
    """

    curves: list[Curve]
    flops: Ranks
    time: Ranks
    tau: float
    pairs: int
    undecided: int
    turned: list[tuple[Curve, Curve]]


def rank_change(curves: list[Curve]) -> RankChange | None:
    """Ranks of one run's methods by FLOPs and by time at equal score; None if fewer than two can be compared.

    Pairs are compared by the mean ratio of costs at equal score, or, where no score is reached by both, by the mean
    score at equal cost. A pair is decided if the 95 % interval over resamples of the samples, and of the time, leaves
    no doubt; times vary by their own intervals and by that of the unreduced model against itself.
    """
    measured = [
        (curve, (curve.score, curve.draws), (curve.time, _noisy(curve, curve.time, curve.spread, curve.draws)))
        for curve in curves
        if curve.draws is not None and curve.time is not None and curve.spread is not None
        if not curve.untrained and len(curve.cost) > 1
    ]
    if len(measured) < 2:
        return None
    timed, scores = [curve for curve, *_ in measured], [score for _, score, _ in measured]
    by_flops, sure_of_flops = _compared(scores, [(curve.cost, curve.cost) for curve in timed])
    by_time, sure_of_time = _compared(scores, [time for *_, time in measured])
    pairs = list(combinations(range(len(timed)), 2))
    both = [(i, j) for i, j in pairs if not np.isnan(by_flops[i, j] + by_time[i, j])]
    turned = [
        (i, j) if sure_of_flops[i, j] > 0 else (j, i) for i, j in pairs if sure_of_flops[i, j] * sure_of_time[i, j] < 0
    ]
    return RankChange(
        timed,
        _ranks(by_flops, sure_of_flops),
        _ranks(by_time, sure_of_time),
        concordance(by_flops, by_time),
        len(both),
        sum(not sure_of_flops[pair] * sure_of_time[pair] for pair in both),
        [(timed[i], timed[j]) for i, j in turned],
    )


def _noisy(curve: Curve, time: Floats, spread: Floats, draws: Floats) -> Floats:
    """(resamples, k) times as other rounds on this machine might have given them."""
    draw = np.random.default_rng(crc32(" ".join((curve.run, *curve.key)).encode()))
    return time * np.exp(spread * draw.standard_normal(draws.shape))


def _compared(scores: list[Drawn], costs: list[Drawn]) -> tuple[Floats, Floats]:
    """(k, k) twice: by how much the row is ahead of the column, NaN if they share nothing; and the sign of what is
    beyond doubt, else 0."""
    ahead = np.full((len(scores), len(scores)), np.nan)
    np.fill_diagonal(ahead, 0.0)
    sure = np.zeros_like(ahead)
    for i, j in combinations(range(len(scores)), 2):
        value, drawn = _difference(scores[i], scores[j], costs[i], costs[j])
        ahead[i, j], ahead[j, i] = value, -value
        for sign in (1, -1):  # where a resample shares nothing, it does not speak for either
            if (sign * drawn > 0).mean() >= 1 - DOUBT:
                sure[i, j], sure[j, i] = sign, -sign
    return ahead, sure


def _difference(one: Drawn, two: Drawn, cost: Drawn, other: Drawn) -> tuple[float, Floats]:
    """By how much `one` is ahead, and the same in all resamples: of cost at equal score, or of score at equal cost.

    The former, unless there are resamples in which the curves share no score, and hardly any in which they share no
    cost.
    """
    by_cost, by_score = (
        (
            float(sign * compare(cost[0], one[0], other[0], two[0])),
            sign * compare(cost[1], one[1], other[1], two[1]),
        )
        for sign, compare in ((-1, mean_cost_change), (1, mean_gain))
    )
    partly = [found for found in (by_cost, by_score) if not np.isnan(found[0])]
    whole = [found for found in partly if np.isnan(found[1]).mean() <= DOUBT]
    return next(iter(whole + partly), by_cost)


def _ranks(ahead: Floats, sure: Floats) -> Ranks:
    others = len(ahead) - 1
    return Ranks(
        [None if np.isnan(row).any() else 1 + int((row < 0).sum()) for row in ahead],
        [1 + int((row < 0).sum()) for row in sure],
        [1 + others - int((row > 0).sum()) for row in sure],
    )
