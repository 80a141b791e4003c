"""One side of a comparison: cells with their outcomes, whether they come from a run or from a stored baseline."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from reports.text.wording import reducer_label, training_mark
from suite.contract.baseline import BASELINE
from suite.contract.metric import TaskReport
from suite.errors import RequestError, unknown

# What has to be equal on both sides -> the fields of a run's identity that decide it. A task is never another one.
COMPARED = {
    "task": ("task",),
    "data": ("samples",),
    "model": ("model",),
    "weights": ("weights",),
    "precision": ("precision",),
    "image-size": ("image_size",),
    "protocol": ("task_options", "protocol"),
}
REMARKED = ("torch", "timm", "device", "batch_size", "scored_in")


@dataclass(frozen=True)
class Entry:
    """One cell. read: its outcomes by sample id, with the columns that scores are made of.

    speed, whole_speed: part of a `SpeedResult` (`suite.gate.speed_ratio`), None where nothing was measured.
    dispatched_gmacs, disputed: `torch` and `disputed` of a `FlopReport`, None where they are not known, as in older
    baselines. unscored: why metrics have no value, by their names.
    """

    key: str
    reducer: str
    options: str
    training: str
    rate: str
    resolved_rate: str
    status: str
    reason: str
    gmacs: float | None
    reduction: float | None
    memory_mib: float | None
    speed: dict[str, Any] | None
    whole_speed: dict[str, Any] | None
    dispatched_gmacs: float | None = None
    disputed: bool | None = None
    unscored: dict[str, str] = field(default_factory=dict)
    read: Callable[[], pd.DataFrame] = field(repr=False, compare=False, default=pd.DataFrame)

    @property
    def method(self) -> str:
        """Name with options and training, of a reducer's file without folders."""
        return reducer_label(self.reducer, self.options, training_mark(self.training))

    @property
    def cost(self) -> float | None:
        """10^9 multiply-accumulates an image; of two counts the larger, so that nothing is cheap by what one misses."""
        return max((count for count in (self.gmacs, self.dispatched_gmacs) if count is not None), default=None)

    @property
    def reduced(self) -> bool:
        return self.reducer != BASELINE

    @property
    def label(self) -> str:
        return f"{self.method} {self.rate}".strip()


@dataclass(frozen=True)
class Side:
    """Cells that share data and model. name: as asked for. spec: the request that made them.

    contents: digests of what the samples' files held, by id, as far as they are known.
    """

    name: str
    identity: dict[str, Any]
    spec: dict[str, Any]
    shown: TaskReport
    entries: tuple[Entry, ...]
    contents: dict[str, str] = field(repr=False, default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Those that reduce, each once."""
        return list(dict.fromkeys(entry.method for entry in self.entries if entry.reduced))


def check_comparable(new: Side, base: Side, allowed: Collection[str] = ()) -> list[str]:
    """What differs and must be known, one sentence each. RequestError for what must not, unless it is in `allowed`."""
    for name in allowed:
        if name not in COMPARED or name == "task":
            raise unknown("name in --allow-different", name, set(COMPARED) - {"task"})
    remarks = []
    for what, fields in COMPARED.items():
        own, other = ([side.identity.get(name) for name in fields] for side in (new, base))
        if own == other:
            continue
        remarks.append(_allowed(what, f"{_short(own)} in {new.name}, {_short(other)} in {base.name}", allowed))
    changed = [id for id in new.contents.keys() & base.contents if new.contents[id] != base.contents[id]]
    if changed:
        said = f"{len(changed)} samples of the same names have changed from {base.name} to {new.name}"
        remarks.append(_allowed("data", f"{said}, first {min(changed)}", allowed))
    for name in REMARKED:
        here, there = new.identity.get(name), base.identity.get(name)
        if here != there:
            remarks.append(f"{name}: {here} in {new.name}, {there} in {base.name}")
    return remarks


def _allowed(what: str, how: str, allowed: Collection[str]) -> str:
    """The remark that something differs. RequestError if it must not."""
    if what in allowed:
        return f"{what} differs: {how} (allowed)"
    allow = "" if what == "task" else f", or allow it with --allow-different {what}"
    raise RequestError(f"{what} differs: {how}; compare runs of the same {what}{allow}")


def _short(values: list[Any]) -> str:
    shown = [value for value in values if value not in ({}, None)]
    texts = [value[:12] if isinstance(value, str) and len(value) == 64 else str(value) for value in shown]
    return " ".join(texts) or "none"
