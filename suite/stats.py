"""Statistics of per-sample outcomes: pure functions of counts and arrays, nothing of ours imported."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest


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
