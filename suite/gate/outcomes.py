"""From stored outcomes to what a paired comparison works on: what each sample adds, and what the sums come to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from suite.contract.metric import Metric, TaskReport
from suite.stats import FEWEST, Statistic, samples_to_see

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
        return self.metric.binary

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
        return max(enough, math.ceil(self.samples * FEW_IMAGES / float(np.median(self.per_class))))


def pair_up(new: pd.DataFrame, base: pd.DataFrame, shown: TaskReport, same_data: bool = True) -> list[Paired]:
    """Every metric of the task that the outcomes of both sides say, on the samples that both have.

    Empty where they have no sample in common. same_data: both sides expected the same samples.
    """
    ids = new.index.intersection(base.index)
    if ids.empty:
        return []
    new, base = new.loc[ids], base.loc[ids]
    found = []
    for metric in shown.metrics:
        made_of = metric.aggregate
        if made_of is None or (metric.bound_to_data and not same_data):
            continue
        columns = list(made_of.columns)
        if not set(columns) <= set(new) & set(base):
            continue
        known = new[columns].notna().all(axis=1) & base[columns].notna().all(axis=1)
        if not known.any():
            continue
        new_adds, base_adds = made_of.addends(new.loc[known, columns], base.loc[known, columns])
        if not np.isnan(made_of.score(base_adds)):  # there is none where no pixel is labelled
            counts = made_of.class_counts(base_adds)
            found.append(Paired(metric, new_adds, base_adds, made_of.statistic(len(base_adds)), counts))
    return found
