"""Intervals of proportions and means, and resampling: how far other samples could move a score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, t

from suite.stats.jackknife import jackknife_interval, rows_of_samples


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float] | None:
    """Two-sided Wilson score interval of a proportion, as fractions in [0, 1]; None for n = 0.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    Unlike p ± z·sqrt(p(1-p)/n) it keeps a width at 0 % and 100 %, where strong models on small sets end up.

    Raises:
        ValueError: successes is not within 0..n, or level not within (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes = {successes} of n = {n}; it must lie within 0..n")
    if not 0 < level < 1:
        raise ValueError(f"level = {level}; it must lie strictly between 0 and 1, e.g. 0.95")
    if n == 0:
        return None
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def student_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean that values (n,), n >= 2, scatter about, such as scores of several seeds.

    Source: Student, "The probable error of a mean", 1908.
    """
    values = np.asarray(values, dtype=np.float64)
    mean, n = values.mean(), len(values)
    half = t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return float(mean - half), float(mean + half)


def paired_agreement(first: ArrayLike, second: ArrayLike) -> tuple[int, int]:
    """(how often two predictions for the same sample are equal, number of samples).

    Args:
        first, second: (n,) predicted classes of two models, the same sample at the same position.

    Raises:
        ValueError: the two are not one-dimensional arrays of equal length, so they cannot be pairs.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"predictions of shapes {first.shape} and {second.shape} are not pairs of one sample each")
    return int(np.count_nonzero(first == second)), len(first)


def bootstrap_sums(values: ArrayLike, seed: int = 0, resamples: int = 2000) -> np.ndarray:
    """Sums of `values` over resamples of the samples: n of n, drawn with replacement.

    Statistics of sums, such as means and ratios, follow from them. Equal n, seed and resamples draw the same samples.

    Args:
        values: (n, k) numbers per sample, n >= 1.

    Returns:
        (resamples, k) float64.

    Raises:
        ValueError: values is not two-dimensional, has no rows, or holds NaN or Inf.
    """
    values = rows_of_samples(values)
    draw, n = np.random.default_rng(seed), len(values)
    # How often each sample is drawn, in place of the samples: one small matrix product a resample.
    return np.stack([np.bincount(draw.integers(0, n, n), minlength=n) @ values for _ in range(resamples)])


def percentile_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of values (resamples,), e.g. from their 2.5th to their 97.5th percentile.

    Raises:
        ValueError: level is not within (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level}; it must lie strictly between 0 and 1, e.g. 0.95")
    low, high = np.quantile(np.asarray(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of the population's mean from values (n,), in their unit, as `jackknife_interval` gives it.

    None for fewer than two, which do not say how far others would be.

    Raises:
        ValueError: values is not one-dimensional or holds NaN or Inf, or level is not within (0, 1).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"values of shape {values.shape} are not one finite number a sample")
    if len(values) < 2:
        return None
    low, high = jackknife_interval(values.mean(), values, level)
    return float(low), float(high)
