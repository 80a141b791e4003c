"""From stored outcomes to what a paired comparison works on: what each sample adds, and what the sums come to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from suite.contract.metric import Metric, Shown
from suite.stats import FEWEST, Statistic, samples_to_see
from tasks.caption_scoring.intervals import BLEU_COUNTS, MEANS, corpus_bleu, corpus_meteor, meteor_counts
from tasks.segmentation_scoring import AREAS, dense_areas, metrics_of_resamples

SHARES = {"top1": "correct", "top5": "correct5"}
BLEU = tuple(f"bleu_{n}" for n in range(1, 5))
OF_MASKS = ("miou", "aacc", "macc")
CORPUS_BOUND = ("cider",)
"""A sample's part depends on all references of its run, so runs of other data cannot be paired."""
KEPT = (*SHARES.values(), *MEANS, "tokens", *BLEU_COUNTS, "meteor_stats", "classes", *AREAS)


FEW_IMAGES = 5
"""A class in fewer images is rare. Where more than half of the classes are, a mean over classes is no ground for a
verdict: its interval still holds (`tests.perf.coverage`), but the score is off by as much as its standard error.
"""


@dataclass(frozen=True)
class Paired:
    """Two methods' outcomes for the same samples: (n, k) each, and what their sums come to.

    per_class: in how many images each class occurs, of a mean over classes.
    """

    metric: Metric
    new: np.ndarray
    base: np.ndarray
    statistic: Statistic
    per_class: np.ndarray | None = None

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

    @property
    def thin(self) -> str:
        """Why these samples are no ground for a verdict; "" if they are. Of shares the exact test says it itself."""
        if self.binary:
            return ""
        if self.differing < FEWEST:
            return f"only {self.differing} of {self.samples} samples differ; fewer than {FEWEST} do not tell how much"
        if self.per_class is not None and np.median(self.per_class) < FEW_IMAGES:
            rare = np.count_nonzero(self.per_class < FEW_IMAGES)
            return f"{rare} of {len(self.per_class)} classes occur in fewer than {FEW_IMAGES} images"
        return ""

    @property
    def least(self) -> int:
        """Samples of which four of five sets are no longer thin, if they are like these; 0 where none differ."""
        if not self.thin or not self.differing:
            return 0
        enough = samples_to_see(self.differing / self.samples, FEWEST)
        if self.per_class is None:
            return enough
        return max(enough, math.ceil(self.samples * FEW_IMAGES / np.median(self.per_class)))


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
        if metric.name in OF_MASKS and not base["labelled"][known].map(np.sum).any():
            continue  # no pixel is labelled: there is no score
        if known.any():
            found.append(Paired(metric, *make(new.loc[known, columns], base.loc[known, columns])))
    return found


def _recipe(metric: str) -> tuple[list[str], Callable[[pd.DataFrame, pd.DataFrame], tuple[Any, ...]]]:
    """The columns that a metric is made of, and what makes addends of both sides and a statistic of them."""
    if metric in SHARES or metric in MEANS:
        return [SHARES.get(metric, metric)], _mean
    if metric == "length":
        return ["tokens"], lambda *sides: _mean(*(side.map(len) for side in sides))
    if metric == "meteor":
        return ["meteor_stats"], _meteor
    if metric in BLEU:
        return list(BLEU_COUNTS), partial(_bleu, BLEU.index(metric))
    if metric in OF_MASKS:
        return ["classes", *AREAS], partial(_masks, metric)
    return [], _mean


def _mean(new: pd.DataFrame, base: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, Statistic]:
    n = len(new)
    return new.to_numpy(float), base.to_numpy(float), lambda sums: sums[:, 0] / n


def _meteor(new: pd.DataFrame, base: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, Statistic]:
    return meteor_counts(new["meteor_stats"]), meteor_counts(base["meteor_stats"]), corpus_meteor


def _bleu(order: int, new: pd.DataFrame, base: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, Statistic]:
    return new.to_numpy(float), base.to_numpy(float), lambda sums: corpus_bleu(sums)[:, order]


def _masks(metric: str, new: pd.DataFrame, base: pd.DataFrame) -> tuple[Any, ...]:
    classes = 1 + max(int(max(row)) for side in (new, base) for row in side["classes"] if len(row))
    areas = [dense_areas(side, classes).reshape(len(side), -1).astype(float) for side in (new, base)]

    def statistic(sums: np.ndarray) -> np.ndarray:
        return metrics_of_resamples(sums.reshape(len(sums), len(AREAS), classes))[metric]

    labelled = areas[1].reshape(len(new), len(AREAS), classes)[:, AREAS.index("labelled")]
    images = np.count_nonzero(labelled, axis=0)
    return *areas, statistic, None if metric == "aacc" else images[images > 0]
