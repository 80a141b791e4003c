"""The parts of a frame that can stand in one table or plot, and what each of several is called."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reports.frame import AGREEMENT, SHARED, Attached, columns_of
from reports.repeats import without_repeats
from suite.contract.metric import Metric, TaskReport

TOLD_APART_BY = ("model", "weights", "precision", "batch_size", "image_size", "restore")


@dataclass(frozen=True)
class Group:
    """Cells of the run in folder `out` that share everything but the reducer and its rate; among them, see
    `reports.marks.floor_rows`, floors from other runs."""

    out: Path
    task: str
    model: str
    weights: str
    weights_kind: str
    restore: str
    precision: str
    batch_size: int
    image_size: int | None
    frame: pd.DataFrame
    shown: TaskReport
    context: list[dict[str, Any]]  # one a row

    @property
    def random_weights(self) -> bool:
        return self.weights_kind == "random"

    @property
    def headline(self) -> Metric:
        """What methods are compared by: the task's first metric, or, with random weights, the agreement."""
        return AGREEMENT if self.random_weights else self.shown.metrics[0]

    def folder_of(self, key: str) -> Path:
        """Where the cell of one of the rows is stored."""
        return Path(self.context[self.frame.index.get_loc(key)]["out"]) / "cells" / key

    def seen(self, name: str, whole: bool = False) -> list[Any]:
        """The distinct values of one circumstance among the rows that have it, e.g. their devices.

        whole: of the timing of the whole model, not of the backbone.
        """
        name = f"whole_{name}" if whole else name
        values = (circumstances.get(name) for circumstances in self.context)
        return sorted({value for value in values if value is not None})


def groups(frame: pd.DataFrame) -> Iterator[Group]:
    """The frame's rows in sets that can share a table or a plot, in the frame's order; without those that repeat others
    with other random draws."""
    frame = without_repeats(frame)
    context = frame.attrs["context"]
    about = [{"out": context[key]["out"], "image_size": context[key].get("image_size")} for key in frame.index]
    shared = frame[list(SHARED)].to_dict("records")
    labels = [{**own, **row} for own, row in zip(about, shared, strict=True)]
    for label in [label for place, label in enumerate(labels) if label not in labels[:place]]:
        part = _part(frame, [other == label for other in labels], [label["out"]])
        circumstances = [context[key] for key in part.index]
        own = {**label, "out": Path(label["out"])}
        yield Group(**own, frame=part, shown=shown_of(part), context=circumstances)


def by_task(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The frame in parts whose runs report the same, each with the columns of its own task."""
    alike: dict[str, list[str]] = {}
    for out, about in frame.attrs["runs"].items():
        alike.setdefault(json.dumps(about, sort_keys=True), []).append(out)
    context = frame.attrs["context"]
    return [_part(frame, [context[key]["out"] in outs for key in frame.index], outs) for outs in alike.values()]


def shown_of(frame: pd.DataFrame) -> TaskReport:
    """What the one task of a frame reports."""
    return TaskReport.from_dict(next(iter(frame.attrs["runs"].values()))["shown"])


def labels_of(parts: Sequence[Group]) -> list[str]:
    """What tells each of several groups from the others: the names of their folders, as long as they must be to differ,
    with the model where several are shown."""
    paths = [part.out.resolve() for part in parts]
    depth = next((d for d in range(1, 9) if len({p.parts[-d:] for p in paths}) == len(set(paths))), 9)
    several = {field for field in TOLD_APART_BY if len({str(getattr(part, field)) for part in parts}) > 1}
    labels = []
    for path, part in zip(paths, parts, strict=True):
        name, alone = "/".join(path.parts[-depth:]), paths.count(path) == 1
        fields = [field for field in TOLD_APART_BY if field in several and (field == "model" or not alone)]
        said = [str(getattr(part, field)) for field in fields]
        labels.append(" · ".join([name, *(text for text in said if text not in name)]))
    return labels


def _part(frame: pd.DataFrame, chosen: Sequence[bool], outs: Collection[str]) -> pd.DataFrame:
    """Some rows, whose runs report the same, with the columns of their task."""
    about = Attached((out, frame.attrs["runs"][out]) for out in outs)
    part = frame.loc[list(chosen), list(columns_of(TaskReport.from_dict(about[next(iter(about))]["shown"])))]
    part.attrs["runs"] = about
    return part
