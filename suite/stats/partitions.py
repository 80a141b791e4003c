"""How alike two ways are to group the same things, and whether groups alike go with scores alike."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.stats import hypergeom, spearmanr

NO_DIFFERENCE = 1e-12  # of information, in nats: below it both sides say nothing


def alone(owners: np.ndarray) -> np.ndarray:
    """(B, P) bool: which of P things stand for themselves alone; owners (B, P) as `TokenMaps.owners`, -1 for none."""
    found = np.zeros(owners.shape, dtype=bool)
    for row, own in zip(found, owners, strict=True):
        sizes = np.bincount(own[own >= 0], minlength=1)
        row[own >= 0] = sizes[own[own >= 0]] == 1
    return found


def overlap(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(B,) intersection over union of sets (B, P) bool; NaN where both are empty."""
    either, both = (one | two).sum(axis=1), (one & two).sum(axis=1)
    shares: np.ndarray = np.divide(both, either, out=np.full(len(one), np.nan), where=either > 0)
    return shares


def mutual_information(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    """(normalised, adjusted) mutual information of two partitions, labels (P,), over the mean of both entropies.

    1 where the partitions are the same. Normalised, two fine partitions share much by chance; adjusted is 0 on average
    for partitions that were drawn at random with groups of the same sizes. NaN for both where neither says anything:
    all in one group on both sides, or each alone on both.

    Sources: N. X. Vinh, J. Epps and J. Bailey, "Information theoretic measures for clusterings comparison", JMLR 2010;
    as scikit-learn's `normalized_mutual_info_score` and `adjusted_mutual_info_score`.
    """
    count = len(one)
    rows, columns = (np.unique(side, return_inverse=True)[1] for side in (one, two))
    sizes, others = np.bincount(rows), np.bincount(columns)
    joint = np.bincount(rows * len(others) + columns)
    joint = joint[joint > 0]
    entropy = [_entropy(part / count) for part in (sizes, others, joint)]
    shared, mean = entropy[0] + entropy[1] - entropy[2], (entropy[0] + entropy[1]) / 2
    by_chance = _by_chance(sizes, others)
    if mean - by_chance < NO_DIFFERENCE:
        return float("nan"), float("nan")
    return shared / mean, (shared - by_chance) / (mean - by_chance)


def _entropy(shares: np.ndarray) -> float:
    return float(-(shares * np.log(shares)).sum())


def _by_chance(sizes: np.ndarray, others: np.ndarray) -> float:
    """Expected mutual information of groups of these sizes; few sizes differ, so it is made of few terms."""
    count = int(sizes.sum())
    (kinds, often), (other_kinds, other_often) = (np.unique(side, return_counts=True) for side in (sizes, others))
    each = np.array([[_pair(a, b, count) for b in other_kinds.tolist()] for a in kinds.tolist()])
    return float(often @ each @ other_often)


@lru_cache(maxsize=2**16)
def _pair(a: int, b: int, count: int) -> float:
    """What a group of `a` and one of `b` among `count` share by chance: their overlap is hypergeometric."""
    both = np.arange(max(1, a + b - count), min(a, b) + 1)
    share = both / count
    return float((share * np.log(count * both / (a * b)) * hypergeom.pmf(both, count, a, b)).sum())


def mantel(similarity: np.ndarray, values: np.ndarray, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """Spearman's correlation of the similarity (m, m) of pairs with how far apart their values (m,) are, and its
    two-sided p-value: values are dealt anew among the m, for pairs with one of them in common are not independent.

    NaN for fewer than four, or where all pairs are alike in one of both.

    Source: N. Mantel, "The detection of disease clustering and a generalized regression approach", 1967.
    """
    first, second = np.triu_indices(len(values), k=1)
    pairs, draw = similarity[first, second], np.random.default_rng(seed)

    def correlation(of: np.ndarray) -> float:
        return float(spearmanr(pairs, np.abs(of[first] - of[second])).statistic)

    if len(values) < 4 or np.ptp(pairs) == 0 or np.ptp(np.abs(values[first] - values[second])) == 0:
        return float("nan"), float("nan")
    found = correlation(values)
    drawn = np.array([correlation(draw.permutation(values)) for _ in range(resamples)])
    return found, float((1 + (np.abs(drawn) >= abs(found) - NO_DIFFERENCE).sum()) / (1 + resamples))
