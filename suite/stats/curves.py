"""Curves of a score over a cost, compared: area under a frontier, mean differences over what two curves share, orders.

A curve is its measured points, joined by straight lines and continued nowhere. Straight lines, for a method is measured
at a handful of rates, each with noise: they need two points, never leave the range of their ends, and turn the curve of
a mean into the mean of curves; a cubic through four noisy points bends with the noise. Sources: G. Bjøntegaard,
"Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001, for the means over a shared range; E.
Zitzler and L. Thiele, "Multiobjective evolutionary algorithms: a comparative case study", 1999, for the hypervolume.

Costs and scores are (..., k): k points of a curve, leading axes broadcast, such as resamples of the scores. Points may
come in any order. Every cost is above 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def hypervolume(cost: ArrayLike, score: ArrayLike, limit: float, floor: float = 0.0) -> Floats:
    """Area (...) that points dominate up to the reference point (limit, floor), in units of cost times score.

    A point dominates what costs more and scores less, so this is the integral, over budgets up to `limit`, of the best
    score above `floor` that a budget buys. Nothing is interpolated: a curve with more points has more steps.
    """
    cost, score = _ascending(cost, score)
    best = np.maximum.accumulate(np.maximum(score, floor), axis=-1) - floor
    end = np.full((*cost.shape[:-1], 1), float(limit))
    widths = np.diff(np.minimum(np.concatenate([cost, end], axis=-1), limit), axis=-1)
    area: Floats = (widths * best).sum(axis=-1)
    return area


def mean_gain(cost: ArrayLike, score: ArrayLike, other_cost: ArrayLike, other_score: ArrayLike) -> Floats:
    """Mean of score less other score at equal cost (...), over the costs that both curves span; NaN if they share none.

    Swapping the curves changes the sign and nothing else.
    """
    one, two = _ascending(cost, score), _ascending(other_cost, other_score)
    low, high = shared(one[0], two[0])
    return _mean(*one, low, high) - _mean(*two, low, high)


def mean_cost_change(cost: ArrayLike, score: ArrayLike, other_cost: ArrayLike, other_score: ArrayLike) -> Floats:
    """Mean change of cost at equal score (...), over the scores that both reach: −0.1 is 10 % cheaper; NaN if none.

    The mean is that of the ratio's logarithm, so that c for the curves in one order is 1 / (1 + c) − 1 in the other.
    A curve whose score falls with its cost somewhere is first made to rise, by the least squares (see `rising`).
    """
    (one_cost, one), (two_cost, two) = _ascending(cost, score), _ascending(other_cost, other_score)
    one, two = rising(one), rising(two)
    low, high = shared(one, two)
    return np.expm1(_mean(one, one_cost, low, high, log=True) - _mean(two, two_cost, low, high, log=True))


def shared(one: ArrayLike, two: ArrayLike) -> tuple[Floats, Floats]:
    """What two sets of numbers (..., k) both span: (low, high), each (...), low above high where they share nothing."""
    one, two = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    return np.maximum(one.min(-1), two.min(-1)), np.minimum(one.max(-1), two.max(-1))


def rising(values: ArrayLike) -> Floats:
    """The sequences nearest to `values` (..., k), by least squares, that nowhere fall.

    Isotonic regression in its max-min form: R. E. Barlow et al., "Statistical inference under order restrictions",
    1972. More of a cost cannot hurt, so a fall is noise, and its two sides are equally to blame: to keep the higher one
    would favour curves with more noise.
    """
    values = np.asarray(values, dtype=np.float64)
    k = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), values.cumsum(-1)], axis=-1)
    first, last = np.arange(k)[:, None], np.arange(k)[None, :]
    means = (sums[..., last + 1] - sums[..., first]) / np.maximum(last + 1 - first, 1)  # (..., first, last)
    means = np.where(first <= last, means, np.inf)
    least_to_come = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
    at = np.arange(k)
    return np.maximum.accumulate(least_to_come, axis=-2)[..., at, at]


def concordance(one: ArrayLike, two: ArrayLike) -> float:
    """Kendall's tau of two orders, given as comparisons (k, k) of all pairs: positive where the row is ahead.

    (pairs ordered alike − pairs ordered contrarily) / pairs that both compare; NaN: not compared. Equal to tau-a of two
    rankings where both have compared all. NaN where no pair was compared by both.
    """
    rows, columns = np.triu_indices(np.shape(one)[0], 1)
    product = np.sign(np.asarray(one, dtype=np.float64)[rows, columns]) * np.sign(np.asarray(two)[rows, columns])
    product = product[~np.isnan(product)]
    return float(product.mean()) if len(product) else float("nan")


def _ascending(cost: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    """Both, broadcast to one shape, by ascending cost. ValueError for fewer than one point, NaN, or a cost of 0."""
    cost, score = np.broadcast_arrays(np.asarray(cost, dtype=np.float64), np.asarray(score, dtype=np.float64))
    if not cost.ndim or not cost.shape[-1]:
        raise ValueError(f"costs of shape {cost.shape} are no points of a curve")
    if not (np.isfinite(cost).all() and np.isfinite(score).all() and (cost > 0).all()):
        raise ValueError("a curve needs finite scores and finite costs above 0; leave out the points that have none")
    order = np.argsort(cost, axis=-1, kind="stable")
    return np.take_along_axis(cost, order, -1), np.take_along_axis(score, order, -1)


def _mean(at: Floats, value: Floats, low: Floats, high: Floats, log: bool = False) -> Floats:
    """Mean of the lines through (at, value), `at` not falling, over low..high, exactly; of their logarithm with `log`.

    Where `at` stands still the line jumps, which adds nothing. NaN where low..high is empty.
    """
    start, stop = at[..., :-1], at[..., 1:]
    step = stop - start
    a, b = (np.clip(end[..., None], start, stop) for end in (low, high))
    slope = np.divide(np.diff(value, axis=-1), step, out=np.zeros_like(step), where=step > 0)
    p, q = (value[..., :-1] + (end - start) * slope for end in (a, b))
    area = ((b - a) * (_mean_log(p, q) if log else (p + q) / 2)).sum(axis=-1)
    width = high - low
    mean = np.full_like(width, np.nan)
    np.divide(area, width, out=mean, where=width > 0)
    return mean


def _mean_log(p: Floats, q: Floats) -> Floats:
    """Mean of log(x) over p..q: (q log q − p log p) / (q − p) − 1, and its limit where the two are nearly one."""
    apart = np.abs(q - p) > 1e-6 * np.abs(p)
    exact = np.divide(q * np.log(q) - p * np.log(p), q - p, out=np.zeros_like(p), where=apart) - 1
    return np.where(apart, exact, np.log((p + q) / 2))
