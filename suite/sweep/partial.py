"""What a run has come to so far, while its samples come in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from suite.contract.metric import Metric
from suite.stats.aggregates import Mean, Share
from suite.sweep.lane import Lane

FEWEST = 64  # samples of which there is a score to show
KNOWN = (Share, Mean)  # what a few samples tell already, and what is told by a number of each


@dataclass(frozen=True)
class PartialScore:
    """One cell's score of `samples` of `of` samples, with its 95 % interval, if there is one.

    options: of the reducer, as JSON, '' for none. learned: what it has to learn, without weights; source: of its
    weights. macs: of an image, of the cell and of the unreduced model; None where they are not counted.
    """

    reducer: str
    options: str
    learned: str | None
    source: str | None
    rate: str
    value: float
    interval: tuple[float, float] | None
    samples: int
    of: int
    macs: tuple[int, int] | None


class Partial:
    """Scores of a lane's cells by the task's first metric, from the rows that this process has made.

    There are none where that is no plain mean of what is stored of samples, or the model has random weights.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.metric: Metric = lane.plan.task.shown.metrics[0]
        self.aggregate = self.metric.aggregate
        known = type(self.aggregate) in KNOWN and lane.plan.weights.kind != "random"
        self.columns = self.aggregate.columns if self.aggregate and known else ()
        self.held: dict[str, list[list[np.ndarray]]] = {}  # of cells: of batches: the columns

    def add(self, key: str, rows: pa.RecordBatch) -> None:
        """A batch's rows of a cell."""
        if self.aggregate and self.columns and set(self.columns) <= set(rows.schema.names):
            columns = [rows.column(name).to_numpy(zero_copy_only=False) for name in self.columns]
            self.held.setdefault(key, []).append(columns)  # what they come to is asked for later, beside the forwards

    def scores(self) -> list[PartialScore]:
        """Of the cells that have begun; none before each of these has `FEWEST` samples."""
        found = list(self._scores())
        return found if min((score.samples for score in found), default=0) >= FEWEST else []

    def _scores(self) -> Iterator[PartialScore]:
        held = dict(self.held)
        for cell in self.lane.cells:
            if self.aggregate is None or cell.key not in held:
                continue
            columns = map(np.concatenate, zip(*held[cell.key], strict=True))
            table = pd.DataFrame(dict(zip(self.columns, columns, strict=True))).dropna()
            about, options = cell.about, cell.about.get("options")
            (addends,), flops = self.aggregate.addends(table), cell.folder.read("flops")
            yield PartialScore(
                about["reducer"],
                json.dumps(options, sort_keys=True) if options else "",
                about.get("learned"),
                (about.get("reducer_weights") or {}).get("source"),
                about["rate"],
                self.aggregate.score(addends),
                self.aggregate.interval(addends),
                len(addends),
                len(self.lane.ids),
                (flops["total"], flops["baseline_total"]) if flops else None,
            )
