"""Intervals of a score by the jackknife: how far each sample moves it, where few samples do nearly all of that, too.

The estimand is the population's score: what the same statistic comes to over all samples of the kind that the n at hand
were drawn from. A score is a function of sums over the samples (a mean, BLEU, mIoU), see `Statistic`. Resampling such a
score is biased where a class or a difference is rare, for it is rarer still among resamples; leaving out one sample at
a time is not, and needs no draws: the interval is the same each time, and what n samples say of many pairs of methods
follows from what they say of each method.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

Statistic = Callable[[np.ndarray], np.ndarray]
"""Sums over n samples (R, k) -> the score that each row of sums comes to (R,)."""

PSEUDO = 4
"""Samples that are added in mind, as Agresti and Coull add four to a share; see `jackknife_interval`."""
GAUSSIAN = 3  # kurtosis


def rows_of_samples(values: ArrayLike) -> np.ndarray:
    """(n, k) float64, n >= 1. ValueError for another shape, no rows, NaN or Inf."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"values of shape {values.shape} are not rows of one sample each")
    if not np.isfinite(values).all():
        raise ValueError("values hold NaN or Inf; leave out the samples that have none, or say why")
    return values


def pseudo_values(values: ArrayLike, statistic: Statistic) -> tuple[float, np.ndarray]:
    """A score, and Tukey's pseudo-values (n,) of it: n times the score less n - 1 times that without the sample.

    Those of a mean are the values themselves; the standard error of any score is that of their mean. NaN where a
    sample is the only one, or the score is unknown without it. The sums of all but one are scaled up to n samples.

    Args:
        values: (n, k) what each sample adds to the sums, n >= 1.

    Source: J. W. Tukey, "Bias and confidence in not-quite large samples", 1958.

    Raises:
        ValueError: values is not two-dimensional, has no rows, or holds NaN or Inf.
    """
    values = rows_of_samples(values)
    n, sums = len(values), values.sum(axis=0)
    score = float(statistic(sums[None])[0])
    if n == 1:
        return score, np.full(1, np.nan)
    return score, n * score - (n - 1) * statistic((sums - values) * (n / (n - 1)))


def jackknife_interval(score: ArrayLike, pseudo: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Interval (low, high) of scores (...,) from their pseudo-values (..., n); of a difference, from differences.

    Student's would be too narrow and on the wrong side where most pseudo-values are alike and few are large, as of two
    methods that differ on one sample of fifty. So it is

    - straightened by Hall's cubic transformation, which takes out the skewness;
    - widened, and its skewness shrunk, as if four samples more had been seen that lie evenly on either side. Among how
      many samples they are is the number that the kurtosis leaves: n if the pseudo-values are no more extreme than
      normal ones, about m if they differ from one another on m samples alone;
    - stretched to hold both the score and the jackknife's mean, which has less bias but varies more.

    It always holds the score. NaN where a pseudo-value is.

    Sources: P. Hall, "On the removal of skewness by transformation", 1992; A. Agresti and B. Coull, "Approximate is
    better than 'exact' for interval estimation of binomial proportions", 1998. How often it holds what is true:
    `python -m tests.perf.coverage`.

    Raises:
        ValueError: level is not within (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level}; it must lie strictly between 0 and 1, e.g. 0.95")
    score, pseudo = np.asarray(score, dtype=np.float64), np.asarray(pseudo, dtype=np.float64)
    n, mean = pseudo.shape[-1], pseudo.mean(axis=-1)
    pull = pseudo - mean[..., None]
    farthest = np.abs(pull).max(axis=-1)
    unit = pull / np.where(farthest > 0, farthest, 1.0)[..., None]  # powers of what is tiny would vanish
    second, third, fourth = ((unit**power).mean(axis=-1) for power in (2, 3, 4))
    with np.errstate(divide="ignore", invalid="ignore"):
        moving = np.where(farthest > 0, np.minimum(n, n * GAUSSIAN * second**2 / fourth), n)
        skewness = np.where(farthest > 0, third / second**1.5, 0.0)
    widening = 1 + PSEUDO / moving
    error = farthest * np.sqrt(widening * second / max(n - 1, 1))
    skewness = skewness / widening**1.5 / np.sqrt(n)
    z = norm.isf((1 - level) / 2)
    low = np.minimum(score, mean) - error * _unskewed(z, skewness)
    high = np.maximum(score, mean) - error * _unskewed(-z, skewness)
    return np.minimum(low, score), np.maximum(high, score)


def standard_error(pseudo: ArrayLike) -> np.ndarray:
    """Of the score that the pseudo-values (..., n) are of; NaN for a single one."""
    pseudo = np.asarray(pseudo, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        error: np.ndarray = np.sqrt(pseudo.var(axis=-1) / (pseudo.shape[-1] - 1))
    return error


def _unskewed(z: float, skewness: np.ndarray) -> np.ndarray:
    """What Hall's transformation takes to z: quantiles of a studentised mean whose skewness over sqrt(n) is given."""
    slope = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness)
    quantile: np.ndarray = 3 / slope * (np.cbrt(1 + slope * (z - slope / 6)) - 1)
    return quantile
