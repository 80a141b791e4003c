"""What a task reports of a cell, and how people read it: known to tasks, to the store and to reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from suite.stats.aggregates import Aggregate, read_aggregate


@dataclass(frozen=True)
class Need:
    """What a score is undefined without: `least` of what a task counts as `counted`; words: 'at least' that."""

    counted: str
    least: int
    words: str


@dataclass(frozen=True)
class Metric:
    """A score of a cell: what it is made of, and how people read it.

    name: in the store, and the frame's column. aggregate: how it follows from stored samples; None: it does not, and is
    compared nowhere. lower_is_better: of an error. bound_to_data: a sample's part depends on all of its run's data, so
    runs of other data cannot be paired. needs: what it is undefined without. largest: what is possible, None without a
    bound. scale: what is stored times this is what people read, with `decimals`. hidden: in the store, the frame and
    comparisons only, not in the table for people.
    """

    name: str
    label: str
    aggregate: Aggregate | None = None
    lower_is_better: bool = False
    bound_to_data: bool = False
    largest: float | None = 1.0
    scale: float = 100.0
    decimals: int = 1
    hidden: bool = False
    needs: tuple[Need, ...] = ()

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if self.lower_is_better else 1

    @property
    def binary(self) -> bool:
        """A sample is right or wrong."""
        return self.aggregate is not None and self.aggregate.binary

    @property
    def made_of(self) -> Aggregate:
        """`aggregate`, where it is known that there is one; ValueError where there is none."""
        if self.aggregate is None:
            raise ValueError(f"metric {self.name!r} does not follow from what is stored of samples")
        return self.aggregate

    @property
    def worst(self) -> float:
        """The score of samples that all fail: 0, or the largest error that is possible."""
        if not self.lower_is_better:
            return 0.0
        return math.inf if self.largest is None else self.largest

    def undefined(self, counts: Mapping[str, int]) -> str:
        """Why there is no value, e.g. 'CIDEr needs at least 2 images'; "" where there is one.

        counts: how much there is of what is counted, by the names in `needs`.
        """
        lacking = next((need.words for need in self.needs if counts[need.counted] < need.least), "")
        return lacking and f"{self.label.removesuffix(' (%)')} needs at least {lacking}"


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates per image beyond the backbone's. name: in the store; the frame's column is <name>_gmacs."""

    name: str
    label: str


@dataclass(frozen=True)
class TaskReport:
    """All that a task reports. Methods are compared by the first metric.

    throughput: what the speed of the whole model is called, such as
    'captions/s'; '' where there is no more to it than a backbone. remark: what a reader must know of it and of the
    costs. part: what that backbone is called, where there is more to a model. first: what the seconds of a first
    sample of such a whole are called, such as 'First picture (s)'; '' where they are not shown.
    """

    metrics: tuple[Metric, ...]
    costs: tuple[Cost, ...] = ()
    throughput: str = ""
    remark: str = ""
    part: str = "encoder"
    first: str = ""

    def as_dict(self) -> dict[str, Any]:
        metrics = [
            asdict(metric) | {"aggregate": metric.aggregate and metric.aggregate.as_dict()} for metric in self.metrics
        ]
        return asdict(self) | {"metrics": metrics}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> TaskReport:
        metrics = tuple(
            Metric(
                **{
                    **one,
                    "needs": tuple(Need(**need) for need in one["needs"]),
                    "aggregate": read_aggregate(one["aggregate"]),
                }
            )
            for one in value["metrics"]
        )
        costs = tuple(Cost(**one) for one in value["costs"])
        later = {name: value[name] for name in ("part", "first") if name in value}  # older runs do not say them
        return cls(metrics, costs, value["throughput"], value["remark"], **later)
