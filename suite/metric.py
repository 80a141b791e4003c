"""What a task reports of a cell, and how people read it: known to tasks, to the store and to reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A number that a task reports of a cell, a score or a cost.

    name: in the store, and the frame's column. scale: what is stored times this is what people read, with `decimals`.
    hidden: in the store and the frame only, not in the table for people.
    """

    name: str
    label: str
    scale: float = 100.0
    decimals: int = 1
    hidden: bool = False


@dataclass(frozen=True)
class Shown:
    """All of them. Methods are compared by the first metric.

    costs: multiply-accumulates beyond the backbone's. throughput: what the speed of the whole model is called, such as
    'captions/s'; '' where there is no more to it than a backbone.
    """

    metrics: tuple[Metric, ...]
    costs: tuple[Metric, ...] = ()
    throughput: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Shown:
        metrics, costs = (tuple(Metric(**one) for one in value[name]) for name in ("metrics", "costs"))
        return cls(metrics, costs, value["throughput"])
