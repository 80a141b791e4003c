"""What the samples of a cell add up to: the columns that a score reads, what a sample adds, what the sums come to.

A metric declares one of these, and whoever scores, compares, resamples or draws it reads that. Another is a subclass
with a `kind` of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from suite.stats.areas import AREAS, dense_areas, flat_column, mean_accuracy, mean_iou, pixel_accuracy
from suite.stats.captions import BLEU_COUNTS, corpus_bleu, corpus_meteor, meteor_counts
from suite.stats.intervals import mean_interval, wilson_interval
from suite.stats.jackknife import Statistic, jackknife_interval, pseudo_values

KINDS: dict[str, type[Aggregate]] = {}


@dataclass(frozen=True)
class Aggregate(ABC):
    """How a score follows from its samples.

    kind: its name in the store. binary: a sample is right or wrong. linear: the score is the mean of what samples add.
    """

    kind: ClassVar[str]
    binary: ClassVar[bool] = False
    linear: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns of the stored samples that it reads."""

    @abstractmethod
    def addends(self, *tables: pd.DataFrame) -> Iterator[np.ndarray]:
        """What every sample adds, (n, k) float64 a table, with one k for all; tables hold `columns`, without gaps.

        One after the other, for those of all cells at once could fill the memory.
        """

    @property
    def added(self) -> Hashable:
        """What is equal of aggregates whose samples are known to add the same."""
        return id(self)

    @abstractmethod
    def statistic(self, n: int) -> Statistic:
        """Sums of n samples (R, k) -> the scores that they come to (R,)."""

    def score(self, addends: np.ndarray) -> float:
        """The score of samples that add (n, k)."""
        return float(self.statistic(len(addends))(addends.sum(axis=0)[None])[0])

    def interval(self, addends: np.ndarray) -> tuple[float, float] | None:
        """95 % interval of the population's score, if the samples are drawn from one; None where n says nothing of it.

        The jackknife's, which is the same each time; see `suite.stats.jackknife`.
        """
        low, high = jackknife_interval(*pseudo_values(addends, self.statistic(len(addends))))
        return None if np.isnan(low) else (float(low), float(high))

    def class_counts(self, addends: np.ndarray) -> np.ndarray | None:
        """In how many samples each class occurs, of a score that is a mean over classes; None for others."""
        return None

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


def read_aggregate(stored: Mapping[str, Any] | None) -> Aggregate | None:
    """The aggregate of `as_dict`; None for one that is not known here, as of a plug-in that is not installed."""
    if stored is None or stored["kind"] not in KINDS:
        return None
    return KINDS[stored["kind"]](**{name: value for name, value in stored.items() if name != "kind"})


@dataclass(frozen=True)
class Mean(Aggregate):
    """Mean of a number per sample."""

    column: str
    kind = "mean"
    linear = True

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def addends(self, *tables: pd.DataFrame) -> Iterator[np.ndarray]:
        return (table[[self.column]].to_numpy(float) for table in tables)

    def statistic(self, n: int) -> Statistic:
        return lambda sums: sums[:, 0] / n


@dataclass(frozen=True)
class MeanOfInfluence(Mean):
    """A score that is no function of few sums, such as CKA or mean average precision, by how far each sample moves it.

    A sample's value is the score plus n times what the score loses without the sample, to first order, so that the mean
    is the score itself and the values' standard error is the infinitesimal jackknife's. Intervals, paired differences
    and resamples go by the values: they are right to first order, for many samples, and do not know the score's bounds.

    Source: L. A. Jaeckel, "The infinitesimal jackknife", Bell Laboratories, 1972.
    """

    kind = "mean_of_influence"


@dataclass(frozen=True)
class Share(Mean):
    """Share of the samples that are right; its interval is Wilson's."""

    kind = "share"
    binary = True

    def interval(self, addends: np.ndarray) -> tuple[float, float] | None:
        return wilson_interval(int(addends.sum()), len(addends))


@dataclass(frozen=True)
class MeanLength(Mean):
    """Mean length of a list per sample; its interval is Student's."""

    kind = "mean_length"

    def addends(self, *tables: pd.DataFrame) -> Iterator[np.ndarray]:
        return (table[self.column].map(len).to_numpy(float)[:, None] for table in tables)

    def interval(self, addends: np.ndarray) -> tuple[float, float] | None:
        return mean_interval(addends[:, 0])


@dataclass(frozen=True)
class Bleu(Aggregate):
    """BLEU of n-grams up to `order`, of a whole corpus."""

    order: int
    kind = "bleu"

    @property
    def columns(self) -> tuple[str, ...]:
        return BLEU_COUNTS

    def addends(self, *tables: pd.DataFrame) -> Iterator[np.ndarray]:
        return (table[list(BLEU_COUNTS)].to_numpy(float) for table in tables)

    def statistic(self, n: int) -> Statistic:
        return lambda sums: corpus_bleu(sums)[:, self.order - 1]


@dataclass(frozen=True)
class Meteor(Aggregate):
    """METEOR of a whole corpus, from the scorer's own lines."""

    kind = "meteor"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("meteor_stats",)

    def addends(self, *tables: pd.DataFrame) -> Iterator[np.ndarray]:
        return (meteor_counts(table["meteor_stats"]) for table in tables)

    def statistic(self, n: int) -> Statistic:
        return corpus_meteor


@dataclass(frozen=True)
class PixelAccuracy(Aggregate):
    """Share of all labelled pixels that are right, from the areas of classes in every image."""

    kind = "pixel_accuracy"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("classes", *AREAS)

    def addends(self, *tables: pd.DataFrame) -> Iterator[np.ndarray]:
        num_classes = 1 + max((flat_column(table["classes"]).max(initial=-1) for table in tables), default=-1)
        return (dense_areas(table, num_classes).reshape(len(table), -1).astype(float) for table in tables)

    @property
    def added(self) -> Hashable:
        return type(self).addends  # nothing else decides it

    def statistic(self, n: int) -> Statistic:
        return lambda sums: self._of_areas(_areas(sums))

    def _of_areas(self, areas: np.ndarray) -> np.ndarray:
        return pixel_accuracy(areas)


@dataclass(frozen=True)
class MeanIoU(PixelAccuracy):
    """Intersection over union of the summed areas, a mean over classes."""

    kind = "mean_iou"

    def class_counts(self, addends: np.ndarray) -> np.ndarray | None:
        images: np.ndarray = np.count_nonzero(_areas(addends)[:, AREAS.index("labelled")], axis=0)
        occurring: np.ndarray = images[images > 0]
        return occurring

    def _of_areas(self, areas: np.ndarray) -> np.ndarray:
        return mean_iou(areas)


@dataclass(frozen=True)
class MeanAccuracy(MeanIoU):
    """Share of a class's labelled pixels that are right, a mean over classes."""

    kind = "mean_accuracy"

    def _of_areas(self, areas: np.ndarray) -> np.ndarray:
        return mean_accuracy(areas)


def _areas(flat: np.ndarray) -> np.ndarray:
    """(R, 3·K) -> (R, 3, K)."""
    return flat.reshape(len(flat), len(AREAS), -1)


@dataclass(frozen=True)
class CalibrationError(Aggregate):
    """How far confidences are from the share of right answers: the mean over bins of equal width, by their samples.

    A sample adds right (1 or 0) less confidence in its bin: |sum of a bin| / n is the bin's share of the error.

    Source: expected calibration error of C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern
    neural networks", ICML 2017: 15 bins, closed on the right.
    """

    correct: str
    confidence: str
    bins: int = 15
    kind = "calibration_error"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.correct, self.confidence

    def addends(self, *tables: pd.DataFrame) -> Iterator[np.ndarray]:
        return (self._addends(table) for table in tables)

    def _addends(self, table: pd.DataFrame) -> np.ndarray:
        right, confidence = table[self.correct].to_numpy(float), table[self.confidence].to_numpy(float)
        place = np.clip(np.ceil(confidence * self.bins).astype(int) - 1, 0, self.bins - 1)
        added = np.zeros((len(table), self.bins))
        added[np.arange(len(table)), place] = right - confidence
        return added

    def statistic(self, n: int) -> Statistic:
        return lambda sums: np.abs(sums).sum(axis=1) / n


@dataclass(frozen=True)
class CorruptionError(Aggregate):
    """Mean over kinds of corruption of the share of wrong answers, each relative to a reference's share.

    correct: column of right (1) or wrong (0). corruption: column of a sample's kind; kinds without a reference do not
    count. A sample adds wrong and 1 in its kind's places. Kinds that do not occur are not in the mean.

    Source: mean corruption error of D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to common
    corruptions and perturbations", ICLR 2019; with as many images at every severity, a kind's share is their mean.
    """

    correct: str
    corruption: str
    reference: Mapping[str, float]
    kind = "corruption_error"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.correct, self.corruption

    def addends(self, *tables: pd.DataFrame) -> Iterator[np.ndarray]:
        return (self._addends(table) for table in tables)

    def _addends(self, table: pd.DataFrame) -> np.ndarray:
        places = pd.Index(list(self.reference)).get_indexer(table[self.corruption])
        (known,) = np.nonzero(places >= 0)
        added = np.zeros((len(table), 2, len(self.reference)))
        added[known, 0, places[known]] = 1 - table[self.correct].to_numpy(float)[known]
        added[known, 1, places[known]] = 1
        return added.reshape(len(table), -1)

    def statistic(self, n: int) -> Statistic:
        reference = np.array(list(self.reference.values()))

        def mean(sums: np.ndarray) -> np.ndarray:
            wrong, count = np.moveaxis(sums.reshape(len(sums), 2, -1), 1, 0)
            relative = np.divide(wrong, count * reference, out=np.zeros_like(wrong), where=count > 0.5)
            kinds = (count > 0.5).sum(axis=1)
            found: np.ndarray = np.divide(relative.sum(axis=1), kinds, out=np.full(len(sums), np.nan), where=kinds > 0)
            return found

        return mean
