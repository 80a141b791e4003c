"""Every pair of cells compared on the same samples: difference, 95 % interval, and how surprising it is.

The tests and intervals are those of `suite.stats` for one pair, done for all pairs at once: draws are shared, and what
is linear in the samples, such as pseudo-values, is made once for a cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reports.page.outcomes import MASKS, OF_MEANS, Outcomes
from suite.stats import mcnemar, paired_score_interval, paired_share_interval, pseudo_values

LEVEL, SEED = 0.95, 0
DRAWS, SUM_DRAWS = 2000, 1000  # a draw of what is no mean is a score of its own for every pair
AT_ONCE = 2**23  # numbers of a block of draws: 64 MiB
SHARES = "exact McNemar test", "Tango's score interval of paired shares"
MEANS = "swap test", "jackknife interval over samples"


@dataclass(frozen=True)
class Pairs:
    """The C·(C-1)/2 pairs a < b of C cells, in the order (0, 1), (0, 2), ..., (1, 2), ...

    value: (C,) each cell's score as a fraction. low, high: of b's score less a's. p: two-sided, that it makes no
    difference. only_a, only_b: samples on which one does better, as far as is shown. test, interval: what p, low and
    high are.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    only_a: np.ndarray
    only_b: np.ndarray
    test: str
    interval: str


def compare_pairs(outcomes: Outcomes) -> Pairs:
    """All pairs at once. Shares of right answers: McNemar's exact test and Tango's interval. Means and mIoU: the
    jackknife's interval (`paired_score_interval`), and Noreen's test that swaps two methods' outcomes sample by sample
    (`swap_test`). The tests are about these samples, the intervals about the population that they are drawn from.
    """
    first, second = np.triu_indices(len(outcomes.keys), k=1)
    score, n = np.nan_to_num(outcomes.score), len(outcomes.ids)
    only_a, only_b = np.array([_wins(outcomes.shown, place) for place in range(2)])
    of_means = outcomes.kind in OF_MEANS and not outcomes.metric.binary
    if outcomes.kind == MASKS:
        value, low, high, p = _sums(outcomes, first, second)
    elif of_means:
        value, (low, high, p) = score.mean(axis=1), _means(score, first, second)
    else:
        value, (low, high) = score.mean(axis=1), paired_share_interval(only_b, only_a, n, LEVEL)
        p = mcnemar(only_a, only_b)
    return Pairs(value, low, high, p, only_a, only_b, *(MEANS if of_means or outcomes.kind == MASKS else SHARES))


def _wins(score: np.ndarray, side: int) -> np.ndarray:
    """Of each pair, samples on which the first (side 0) or the second scores more."""
    sign = 1 - 2 * side
    return np.concatenate([(sign * (score[a] - score[a + 1 :]) > 0).sum(axis=1) for a in range(len(score) - 1)])


def _means(score: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """low, high, p of differences of means of score (C, n)."""
    n = score.shape[1]
    low, high = _intervals(score.mean(axis=1), score, score, first, second)
    swapped = np.concatenate([signs @ score.T for signs in swaps(n, DRAWS)]) / n
    mean = score.mean(axis=1)
    p = [_extreme(swapped[:, a] - swapped[:, b], mean[a] - mean[b]) for a, b in zip(first, second, strict=True)]
    return low, high, np.array(p)


def _sums(outcomes: Outcomes, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """value, low, high, p of what follows from sums over all samples, such as mIoU."""
    made_of, n = outcomes.metric.made_of, len(outcomes.ids)
    statistic, scores, pseudo, totals, swapped = made_of.statistic(n), [], [], [], []
    for addends in made_of.addends(*outcomes.tables or ()):
        alone = pseudo_values(addends, statistic)
        scores.append(alone[0])
        pseudo.append(alone[1])
        swapped.append(np.concatenate([signs @ addends for signs in swaps(n, SUM_DRAWS)]))
        totals.append(addends.sum(axis=0))
    value = np.array(scores)
    low, high = _intervals(value, np.array(pseudo), outcomes.score, first, second)
    p = []
    for a, b in zip(first, second, strict=True):
        both, half = (totals[a] + totals[b]) / 2, (swapped[a] - swapped[b]) / 2
        p.append(_extreme(statistic(both + half) - statistic(both - half), value[a] - value[b]))
    return value, low, high, np.array(p)


def _intervals(
    value: np.ndarray, pseudo: np.ndarray, score: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the second's value less the first's, of each pair. pseudo: (C, n) of the cells; score: (C, n), by which the
    samples are told that differ.
    """
    found = []
    for a, b in zip(first, second, strict=True):
        differing = np.count_nonzero(np.nan_to_num(score[a]) != np.nan_to_num(score[b]))
        found.append(paired_score_interval(value[b] - value[a], pseudo[b] - pseudo[a], differing, value[a], LEVEL))
    low, high = np.array(found).T
    return low, high


def _extreme(drawn: np.ndarray, observed: float) -> float:
    """Share of draws, the observed one among them, that are at least as far from 0."""
    slack = 1e-9 * max(abs(observed), 1e-12)  # equal but for the order of additions
    return (1 + np.count_nonzero(np.abs(drawn) >= abs(observed) - slack)) / (1 + len(drawn))


def swaps(n: int, draws: int) -> Iterator[np.ndarray]:
    """Which of n samples keep (1) and which swap (-1) their two outcomes, in blocks (R, n)."""
    random = np.random.default_rng(SEED)
    for rows in _blocks(n, draws):
        yield 2.0 * random.integers(0, 2, (rows, n)) - 1.0


def _blocks(n: int, draws: int) -> list[int]:
    rows = max(1, AT_ONCE // max(n, 1))
    return [min(rows, draws - start) for start in range(0, draws, rows)]
