"""The cells of a paper's table: found in runs that are stored, or measured as sweeps, one a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.frame import load_frame
from suite.contract.baseline import BASELINE
from suite.errors import RequestError
from suite.papers.measured_table import Found, Line
from suite.papers.table import Way
from suite.rates.rate import parse_rate
from suite.reducers import reducer_options
from suite.sweep.engine import execute
from suite.sweep.executors import open_executor
from suite.sweep.plan import make_plan, make_task
from suite.sweep.progress import Progress
from suite.sweep.spec import CellSpec, RunSpec, make_spec

Cells = list[Found]


def read_run(out: str | Path) -> Cells:
    """Every cell of a stored run. RequestError if there is none."""
    frame = load_frame(out)
    context = frame.attrs["context"]
    return [Found(row, context[row.Index]) for row in frame.itertuples()]


def stored_in(folder: Path) -> Cells:
    """The cells of the runs in the folders of `folder`, as `measure` leaves them."""
    return [cell for run in sorted(folder.glob("*/run.json")) for cell in read_run(run.parent)]


def find(line: Line, cells: Sequence[Found], task: str) -> Found | None:
    """The line's cell; a finished one if there is one, of the first run that has it."""
    if line.way is None:
        return None
    of_line = [cell for cell in cells if cell.row.task == task and is_cell_of(line.way, cell)]
    return next((cell for cell in of_line if cell.row.status == "done"), next(iter(of_line), None))


def is_cell_of(way: Way, cell: Found) -> bool:
    """Whether a cell is what the way asks for; options that are not set have their defaults."""
    row = cell.row
    if (row.model, row.reducer, cell.context["image_size"]) != (way.model, way.reducer, way.image_size):
        return False
    if way.reducer == BASELINE:
        return True
    defaults = reducer_options(way.reducer)
    stored = {**defaults, **(json.loads(row.options) if row.options else {})}
    rates = {parse_rate(rate) for rate in (row.rate, row.resolved_rate) if isinstance(rate, str) and rate}
    asked = {way.rate} if way.rate else rates
    return stored == {**defaults, **way.options} and bool(asked & rates or not asked)


def measure(
    lines: Iterable[Line],
    values: Mapping[str, Any],
    out: Path,
    checkpoints: Mapping[str, str],
    progress: Progress,
) -> tuple[Cells, dict[str, str]]:
    """Run what the lines ask for, every model in a folder of its own, and give all cells back.

    values: keys of a RunSpec that all models share. Second: models that could not be run, and why. RequestError for
    what no model can be run with, such as data that cannot be used.
    """
    make_task(make_spec(dict(values)))  # refused at once, not once a model
    by_model: dict[tuple[str, int | None], list[Way]] = {}
    for line in lines:
        if line.way:
            by_model.setdefault((line.way.model, line.way.image_size), []).append(line.way)
    cells, refused = [], {}
    for (model, size), ways in by_model.items():
        folder = out / model
        own = {"model": model, "image_size": size, "checkpoint": checkpoints.get(model, ""), "out": str(folder)}
        progress.note(f"{model}: {len(ways)} rows into {folder}")
        try:
            spec = spec_of(ways, {**values, **own})
            with open_executor(spec, progress) as executor:
                execute(make_plan(spec, executor.kind), progress, executor)
        except RequestError as error:
            refused[model] = str(error)
            progress.failed(model, str(error))
            continue
        cells += read_run(folder)
    return cells, refused


def spec_of(ways: Sequence[Way], values: Mapping[str, Any]) -> RunSpec:
    """One request for all ways, which are of one model. What has no rate is left out, unless it has learned its own."""
    cells = [
        CellSpec(reducer=way.reducer, options=dict(way.options), rate=way.rate, optional=way.rate is None)
        for way in ways
    ]
    names = {way.reducer for way in ways}
    weights = {name: file for name, file in (values.get("reducer_weights") or {}).items() if name in names}
    spec = {**values, "cells": cells, "reducer_weights": weights}
    return make_spec({key: value for key, value in spec.items() if value})
