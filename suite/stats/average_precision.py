"""Average precision of scores that should be high where something is there, and how far each sample moves it."""

from __future__ import annotations

import numpy as np


def average_precision(scores: np.ndarray, present: np.ndarray) -> tuple[float, np.ndarray]:
    """The area of steps under precision over recall of scores (n,), and what it changes by a sample's weight (n,).

    AP = 1/P Σ TP(s_i) / N(s_i) over the P samples i that are `present` (n,) bool, where N(s) samples have a score of s
    or more, TP(s) of them present: equal scores count as one step, as in scikit-learn and torchmetrics. The changes are
    the derivatives of AP by the weights of samples, at 1 each; their sum is 0. NaN of both where nothing is present.
    """
    n, positives = len(scores), int(present.sum())
    if not positives:
        return float("nan"), np.full(n, np.nan)
    _, place = np.unique(-scores, return_inverse=True)  # steps, the highest score first
    reached = np.cumsum(np.bincount(place))
    found = np.bincount(place, weights=present)
    right = np.cumsum(found)
    precision = right / reached
    score = float((found * precision).sum() / positives)
    # a sample is counted at its own step and at all below it
    below_one, below_all = (np.cumsum((found * part)[::-1])[::-1] for part in (1 / reached, right / reached**2))
    own = np.where(present, precision[place] - score + below_one[place], 0.0)
    return score, (own - below_all[place]) / positives


def mean_average_precision(scores: np.ndarray, present: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of `average_precision` over the classes that occur, of scores (n, K), and what each sample comes to.

    The second, (n,), has the first as its mean, and its spread is that of the score over samples: see
    `suite.stats.aggregates.MeanOfInfluence`. NaN where no class occurs.
    """
    each = [average_precision(scores[:, k], present[:, k]) for k in range(scores.shape[1]) if present[:, k].any()]
    if not each:
        return float("nan"), np.full(len(scores), np.nan)
    score = float(np.mean([one for one, _ in each]))
    return score, score + len(scores) * np.mean([change for _, change in each], axis=0)
