"""From stored outcomes to what a paired comparison works on: what each sample adds, and what the sums come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from suite.metric import Metric, Shown
from suite.stats import Statistic
from tasks.caption_scoring.intervals import corpus_meteor, meteor_counts
from tasks.segmentation_scoring import AREAS, dense_areas, metrics_of_resamples

Pair = tuple[np.ndarray, np.ndarray]
CORPUS_BOUND = ("cider",)
"""A sample's part depends on all references of its run, so runs of other data cannot be paired."""
KEPT = ("correct", "cider", "spice", "meteor_stats", "classes", *AREAS)


@dataclass(frozen=True)
class Paired:
    """Two methods' outcomes for the same samples: (n, k) each, and what their sums come to."""

    metric: Metric
    new: np.ndarray
    base: np.ndarray
    statistic: Statistic

    @property
    def samples(self) -> int:
        return len(self.new)

    @property
    def differing(self) -> int:
        """Samples whose outcome is not the same on both sides."""
        return int(np.count_nonzero((self.new != self.base).any(axis=1)))

    @property
    def binary(self) -> bool:
        """Each outcome is right or wrong."""
        return self.metric.name in SHARES


SHARES = {"top1": "correct"}
MEANS = {"cider": "cider", "spice": "spice"}


def pair_up(new: pd.DataFrame, base: pd.DataFrame, shown: Shown, same_data: bool = True) -> list[Paired]:
    """Every metric of the task that the outcomes of both sides say, on the samples that both have.

    Empty where they have no sample in common. same_data: both sides expected the same samples.
    """
    ids = new.index.intersection(base.index)
    if ids.empty:
        return []
    new, base = new.loc[ids], base.loc[ids]
    found = []
    for metric in shown.metrics:
        columns, make = _recipe(metric.name)
        if not columns or not set(columns) <= set(new) & set(base) or (metric.name in CORPUS_BOUND and not same_data):
            continue
        known = new[columns].notna().all(axis=1) & base[columns].notna().all(axis=1)
        if metric.name == "miou" and not base["labelled"][known].map(np.sum).any():
            continue  # no pixel is labelled: there is no score
        if known.any():
            found.append(Paired(metric, *make(new.loc[known, columns], base.loc[known, columns])))
    return found


def _recipe(metric: str) -> tuple[list[str], Callable[[pd.DataFrame, pd.DataFrame], tuple[np.ndarray, ...]]]:
    """The columns that a metric is made of, and what makes addends of both sides and a statistic of them."""
    if metric in SHARES or metric in MEANS:
        return [{**SHARES, **MEANS}[metric]], _mean
    if metric == "meteor":
        return ["meteor_stats"], _meteor
    if metric == "miou":
        return ["classes", *AREAS], _miou
    return [], _mean


def _mean(new: pd.DataFrame, base: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, Statistic]:
    n = len(new)
    return new.to_numpy(float), base.to_numpy(float), lambda sums: sums[:, 0] / n


def _meteor(new: pd.DataFrame, base: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, Statistic]:
    return meteor_counts(new["meteor_stats"]), meteor_counts(base["meteor_stats"]), corpus_meteor


def _miou(new: pd.DataFrame, base: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, Statistic]:
    classes = 1 + max(int(max(row)) for side in (new, base) for row in side["classes"] if len(row))
    areas = [dense_areas(side, classes).reshape(len(side), -1).astype(float) for side in (new, base)]

    def statistic(sums: np.ndarray) -> np.ndarray:
        return metrics_of_resamples(sums.reshape(len(sums), len(AREAS), classes))["miou"]

    return *areas, statistic
