"""What a plan will take, before it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.order import method_order, rate_order
from reports.text.wording import method_label, short_names, short_origins, training_mark, training_of
from suite.rates.rate import rate_text
from suite.store.folder import CellFolder, RunFolder
from suite.sweep.methods import MethodAtRate
from suite.sweep.plan import Plan


@dataclass(frozen=True)
class Row:
    """A cell and what is left of it.

    reducer: the method with its options and training.
    state: 'to do', 'partly done', 'to score' (all predicted, no scores yet), 'done' or 'failed'.
    images: how many are not predicted yet.
    """

    reducer: str
    rate: str
    state: str
    images: int


def list_left(plan: Plan) -> list[Row]:
    """The cells, and what is left of each."""
    folder = RunFolder(plan.spec.out)
    folder.check(plan.identity, list(plan.methods))
    missing = {record["id"] for record in folder.read_missing()}
    batches = [[sample.id for sample in batch if sample.id not in missing] for batch in plan.batches]
    rows, labels = [], method_labels(plan.methods)
    for key in sorted(plan.methods, key=lambda key: _order(plan.methods[key])):
        method = plan.methods[key]
        cell = folder.cell(key)
        left = sum(len(batches[number]) for number in cell.shards.missing(batches))
        rows.append(Row(labels[key], rate_text(method.rate), state_of(cell, left, len(plan.task.forwarded)), left))
    return rows


def seconds_of(rows: Sequence[Row], paces: Sequence[float]) -> float:
    """What the forwards that are left will take if every one costs as much as the unreduced model's.

    paces: seconds an image, of each of the devices that do it together; none need be known where nothing is left.
    """
    images = sum(row.images for row in rows)
    return images / sum(1 / pace for pace in paces) if images else 0.0


def method_labels(methods: Mapping[str, MethodAtRate]) -> dict[str, str]:
    """Key -> what the cell's method is called in every table; no two methods are called alike."""
    origins = short_origins(_source(method) for method in methods.values())
    names = short_names(method.reducer for method in methods.values())
    return {
        key: method_label(names[method.reducer], _options(method), training_mark(_training(method, origins)))
        for key, method in methods.items()
    }


def _training(method: MethodAtRate, origins: Mapping[str, str]) -> str:
    reducer = method.make()
    return training_of(None if reducer.trained else reducer.learned, _source(method), origins)


def _order(method: MethodAtRate) -> tuple[object, ...]:
    trained = f"trained: {_source(method)}" if method.weights else ""
    return *method_order(method.reducer, _options(method), trained), *rate_order(rate_text(method.rate))


def _options(method: MethodAtRate) -> str:
    return json.dumps(method.options, sort_keys=True) if method.options else ""


def _source(method: MethodAtRate) -> str | None:
    return method.weights[0] if method.weights else None


def state_of(cell: CellFolder, left: int, images: int) -> str:
    if cell.read("failed"):
        return "failed"
    if left:
        return "to do" if left == images else "partly done"
    return "to score" if cell.scores() is None else "done"
