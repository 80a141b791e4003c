"""Two methods on the same samples: how far apart they are, how sure that is, and whether chance alone would do.

Of a share of right answers only the samples count on which the two disagree: `wins`, where the first alone is right,
and `losses`, where the second alone is. Any other score is a function of sums over the samples (a mean, a ratio of
sums such as mIoU, METEOR).

Tests and intervals answer two questions. A test (McNemar's, of swaps) is about this data set: whether which method an
outcome is from makes any difference to it. An interval is about the population that its samples were drawn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, binom, norm

from suite.stats.jackknife import Statistic, jackknife_interval, pseudo_values, standard_error

FEWEST = 10
"""Samples that must differ before what they differ by is taken for what samples differ by. Chosen by simulation
(`tests.perf.coverage`): from ten on, one of twenty losses as large as the margin passes, of masks, too, where the worst
losses are the rarest; from six on it would be one of ten.
"""
SIGNS = 2**22  # drawn at a time: 32 MiB
HALVINGS = 45  # of an interval of width 2: what is left is below 1e-13


def mcnemar(wins: ArrayLike, losses: ArrayLike, alternative: str = "two-sided") -> np.ndarray:
    """Exact p-values of the hypothesis that a disagreement is as often a win as a loss.

    wins, losses: whole numbers of any one shape. alternative: 'two-sided', or 'less': the first is worse. The p-value
    is 1 where the two never disagree. Under the hypothesis P(p <= a) <= a for every a, at any number of samples.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    1947; exact by the binomial distribution of wins given wins + losses.

    Raises:
        ValueError: a negative count, or an unknown alternative.
    """
    wins, losses = np.asarray(wins, dtype=np.int64), np.asarray(losses, dtype=np.int64)
    if (wins < 0).any() or (losses < 0).any():
        raise ValueError("wins and losses are counts, and one of them is negative")
    if alternative not in ("less", "two-sided"):
        raise ValueError(f"alternative {alternative!r} is unknown; use 'two-sided' or 'less'")
    rarer = wins if alternative == "less" else np.minimum(wins, losses)
    tail: np.ndarray = binom.cdf(rarer, wins + losses, 0.5)
    return tail if alternative == "less" else np.minimum(1.0, 2 * tail)


def paired_share_interval(
    wins: ArrayLike, losses: ArrayLike, n: ArrayLike, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Score interval of the difference of two shares of right answers on the same n samples, each (wins - losses) / n.

    Any one shape, counts need not be whole; the result is (low, high) of that shape, within [-1, 1]. Where the two
    never disagree it is still z^2 / (n + z^2) wide on either side: so large a difference may go unseen in n samples.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine, 1998. Its one-sided bound is the test of non-inferiority given there.

    Raises:
        ValueError: wins + losses exceeds n, n is 0, or level is not within (0, 1).
    """
    wins, losses, n = (np.asarray(value, dtype=np.float64) for value in (wins, losses, n))
    if (n <= 0).any() or (wins < 0).any() or (losses < 0).any() or (wins + losses > n).any():
        raise ValueError("wins and losses must be counts of n > 0 samples, and no more than n together")
    if not 0 < level < 1:
        raise ValueError(f"level = {level}; it must lie strictly between 0 and 1, e.g. 0.95")
    wins, losses, n = np.broadcast_arrays(wins, losses, n)
    low, high = _tango_bound(np.stack([wins, losses]), np.stack([losses, wins]), n, norm.ppf(0.5 + level / 2))
    return low, -high


def paired_share_exceeds(wins: ArrayLike, losses: ArrayLike, n: ArrayLike, value: float, alpha: float) -> np.ndarray:
    """Whether the lower bound of `paired_share_interval`, one-sided at 1 - alpha, lies above `value`."""
    wins, losses, n = (np.asarray(counts, dtype=np.float64) for counts in (wins, losses, n))
    beyond = _tango_statistic(wins, losses, n, np.asarray(value)) > norm.isf(alpha)
    above: np.ndarray = (wins - losses > n * value) & beyond
    return above


def _tango_bound(wins: np.ndarray, losses: np.ndarray, n: np.ndarray, z: float) -> np.ndarray:
    """The difference d0 <= (wins - losses) / n at which the score statistic is z, by bisection: it falls in d0."""
    least, largest = np.full(np.shape(wins - losses + n), -1.0), (wins - losses) / n
    for _ in range(HALVINGS):
        middle = (least + largest) / 2
        beyond = _tango_statistic(wins, losses, n, middle) > z
        least, largest = np.where(beyond, middle, least), np.where(beyond, largest, middle)
    return least


def _tango_statistic(wins: np.ndarray, losses: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    # the likeliest probability of a loss if the difference of the two shares is d
    linear = (2 * n - wins + losses) * d - wins - losses
    root = np.sqrt(np.maximum(linear**2 + 8 * n * losses * d * (1 - d), 0))
    loss = (root - linear) / (4 * n)
    variance = n * np.maximum(2 * loss + d * (1 - d), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, (wins - losses - n * d) / np.sqrt(variance), np.inf)


def largest_share(seen: ArrayLike, n: ArrayLike, alpha: float) -> np.ndarray:
    """The largest share of samples of which so few as `seen` among n are seen by chance `alpha`; of none, about 3 / n.

    Source: C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", 1934: exact, so no smaller at any n.
    """
    seen, n = np.broadcast_arrays(np.asarray(seen, dtype=np.float64), np.asarray(n, dtype=np.float64))
    return np.where(seen < n, beta.isf(alpha, seen + 1, np.maximum(n - seen, 0.5)), 1.0)


def paired_score_interval(
    difference: ArrayLike,
    pseudo: ArrayLike,
    differing: ArrayLike,
    at_stake: ArrayLike,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Interval (low, high) of differences (...,) of two scores on the same n samples; it always holds them.

    That of `jackknife_interval`. Where fewer than `FEWEST` samples differ they do not tell how much samples differ that
    were not drawn, so it also holds what would be true if all of those failed altogether on either side: a sample
    costs its share of the score then, and how many there may be is known (`largest_share`). Two methods that differ
    nowhere are thus as far apart as may have gone unseen.

    Args:
        pseudo: (..., n) differences of pseudo-values. differing: (...,) samples whose outcomes are not the same.
        at_stake: (...,) the score that may be lost.
    """
    low, high = jackknife_interval(difference, pseudo, level)
    unseen = np.asarray(at_stake, dtype=np.float64) * largest_share(differing, np.shape(pseudo)[-1], (1 - level) / 2)
    few = np.asarray(differing) < FEWEST
    return np.where(few, np.fmin(low, -unseen), low), np.where(few, np.fmax(high, unseen), high)


@dataclass(frozen=True)
class PairedScores:
    """Two scores on the same samples; pseudo: (n,) differences of their pseudo-values; differing: see above. worst: the
    score of samples that all fail.
    """

    first: float
    second: float
    pseudo: np.ndarray
    differing: int
    worst: float = 0.0

    @property
    def difference(self) -> float:
        return self.first - self.second

    @property
    def deviation(self) -> float:
        """Standard error."""
        return float(standard_error(self.pseudo))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Of the population's difference."""
        low, high = paired_score_interval(self.difference, self.pseudo, self.differing, self.second - self.worst, level)
        return float(low), float(high)

    def lower_bound(self, alpha: float) -> float:
        """One-sided, at confidence 1 - alpha."""
        return self.interval(1 - 2 * alpha)[0]

    def largest_loss(self, alpha: float) -> float:
        """The difference if all samples that may differ (`largest_share`, by chance alpha) failed altogether."""
        return -(self.second - self.worst) * float(largest_share(self.differing, len(self.pseudo), alpha))


def paired_scores(first: ArrayLike, second: ArrayLike, statistic: Statistic, worst: float = 0.0) -> PairedScores:
    """Two scores of the same samples, of which more is better.

    Args:
        first, second: (n, k) what each sample adds to the sums that a score is made of, the same sample in each row.
        statistic: makes scores of sums.
        worst: the score of samples that all fail.

    Raises:
        ValueError: the two are no pairs, have no rows, or hold NaN or Inf.
    """
    first, second = _pairs(first, second)
    (one, ones), (two, twos) = (pseudo_values(side, statistic) for side in (first, second))
    return PairedScores(one, two, ones - twos, int(np.count_nonzero((first != second).any(axis=1))), worst)


def resamples_for(alpha: float, tests: int) -> int:
    """With how many `swap_test` can reject at alpha / tests: its p-values are multiples of 1 / (resamples + 1)."""
    return max(2000, math.ceil(4 * tests / alpha))


def swap_test(
    first: ArrayLike,
    second: ArrayLike,
    statistic: Statistic,
    alternative: str = "two-sided",
    seed: int = 0,
    resamples: int = 2000,
) -> float:
    """p-value of the hypothesis that it makes no difference which of the two methods a sample's outcome is from.

    Which is whose is drawn anew for every sample. As the true assignment is one of the draws, P(p <= a) <= a under the
    hypothesis for every a, at any number of samples; for right and wrong answers it is McNemar's test. Arguments as for
    `paired_scores`; alternative as for `mcnemar`.

    Source: E. W. Noreen, "Computer-intensive methods for testing hypotheses", 1989 (approximate randomization).
    """
    if alternative not in ("two-sided", "less"):
        raise ValueError(f"alternative {alternative!r} is unknown; use 'two-sided' or 'less'")
    first, second = _pairs(first, second)
    half, both = (first - second) / 2, (first + second).sum(axis=0) / 2
    differing = half[(half != 0).any(axis=1)]  # to swap equal outcomes changes nothing
    observed = _difference(statistic, both[None], half.sum(axis=0)[None])[0]
    draw, found = np.random.default_rng(seed), []
    chunk = max(1, SIGNS // max(1, len(differing)))
    for begin in range(0, resamples, chunk):
        owners = draw.integers(0, 2, (min(chunk, resamples - begin), len(differing)), dtype=np.int8)
        found.append((2.0 * owners - 1) @ differing)
    drawn = _difference(statistic, both[None], np.concatenate(found))
    slack = 1e-9 * max(abs(observed), 1e-12)  # equal but for the order of additions
    extreme = drawn <= observed + slack if alternative == "less" else np.abs(drawn) >= abs(observed) - slack
    return float((1 + np.count_nonzero(extreme)) / (1 + resamples))


def _difference(statistic: Statistic, both: np.ndarray, half: np.ndarray) -> np.ndarray:
    return statistic(both + half) - statistic(both - half)


def _pairs(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape or not len(first):
        raise ValueError(f"outcomes of shapes {first.shape} and {second.shape} are not pairs of one sample each")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("outcomes hold NaN or Inf; leave out the samples that have none, or say why")
    return first, second
