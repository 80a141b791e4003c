"""Executes a plan: the only place that knows the order of things.

Every cell is counted, evaluated, scored and timed from its folder's state: what is stored is not done again. Images are
decoded once for all cells, and one copy of the backbone serves them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd
import torch

from suite.contract.baseline import BASELINE
from suite.errors import CellError, describe_error
from suite.measure.exclusive import alone
from suite.measure.flops import count_flops, count_module
from suite.measure.machine import describe_machine
from suite.measure.precision import dtype_of
from suite.measure.runtimes import EAGER, list_runtimes
from suite.measure.speed import measure_runtimes
from suite.models.weights_file import file_sha256
from suite.rates.rate import rate_text, stored_rate
from suite.store.folder import RunFolder
from suite.sweep.changes import forget_changed
from suite.sweep.evaluate import Cell
from suite.sweep.executors.local import evaluate_lanes
from suite.sweep.images import sample_images, timing_batch
from suite.sweep.lane import Lane
from suite.sweep.plan import Plan, resolve_device, source_of_runtime
from suite.sweep.progress import Progress
from suite.sweep.tracing import trace_cells

SOLVED_ON, COUNTED_ON = 16, 32  # images, for methods whose cost depends on the image
SINGLE_FORWARDS = 100  # so many have a 99th percentile
WHOLE_ON_CPU = 16  # images of a timed batch: more take seconds a forward there, and no less time an image


def execute(plans: Plan | Sequence[Plan], progress: Progress) -> None:
    """Run the cells of one or more plans to the end. Cells that fail are recorded and do not stop others."""
    plans = [plans] if isinstance(plans, Plan) else plans
    lanes = [begin(plan, progress) for plan in plans]
    with preparing_scores(lanes):
        evaluate_lanes(lanes, resolve_device(plans[0].spec.device), progress)
        for lane in lanes:
            score(lane.plan, drop_failed(lane.cells), progress)
    for lane in lanes:
        if lane.plan.spec.speed:
            time_lane(lane, progress)


def begin(plan: Plan, progress: Progress) -> Lane:
    """Open a plan's folder, and find out what its cells are and cost. Its model is on its device then."""
    folder, notes = plan.open_folder()
    for line in notes:
        progress.note(line)
    folder.write_environment(describe_machine)
    device = resolve_device(plan.spec.device)
    plan.model.to(device)
    known = forget_changed(plan, folder, progress)
    cells = prepare(plan, folder, list(plan.methods), progress)
    cells = count_cost(plan, cells, progress)
    trace_cells(plan, cells, device, progress)
    plan.model.to(dtype_of(plan.spec.precision))
    return Lane(plan, folder, known, cells)


def preparing_scores(lanes: Sequence[Lane]) -> AbstractContextManager[None]:
    """Has the task of the first model that lacks scores prepare for them; those of all could fill the memory."""
    for lane in lanes:
        if any(cell.folder.scores() is None for cell in lane.cells):
            return lane.plan.task.prepare_scoring()
    return nullcontext()


def time_lane(lane: Lane, progress: Progress) -> None:
    """All timings that are asked for of the cells that have not failed, alone on the device."""
    plan, device = lane.plan, resolve_device(lane.plan.spec.device)
    with alone(device, lambda: progress.note("another run is on this device; timing waits until it is free")):
        time_cells(plan, drop_failed(lane.cells), device, progress, "speed")
        if plan.spec.latency:
            time_cells(plan, drop_failed(lane.cells), device, progress, "single_speed")
        if plan.task.shown.throughput:
            whole = partial(plan.task.predict, plan.model)
            time_cells(plan, drop_failed(lane.cells), device, progress, "whole_speed", whole)


def drop_failed(cells: Sequence[Cell]) -> list[Cell]:
    """Those that have not failed."""
    return [cell for cell in cells if cell.folder.read("failed") is None]


def prepare(plan: Plan, folder: RunFolder, keys: Sequence[str], progress: Progress) -> list[Cell]:
    """Describe every cell in its folder, once; a FLOPs target that cannot be reached fails its cell."""
    cells = []
    for key in progress.steps("resolving rates", keys):
        cell, method = folder.cell(key), plan.methods[key]
        cell.remove("failed")
        about = cell.read("cell") or plan.describe(key)
        try:
            if about["resolved_rate"] is None:
                about |= plan.resolve(key, lambda: sample_images(plan, SOLVED_ON))
            cell.write("cell", about)
            handle = plan.handle(method, stored_rate(about["resolved_rate"]))
        except Exception as error:  # also what a method's own code raises while its cost is counted
            cell.write("cell", about)
            cell.fail(describe_error(error))
            progress.failed(f"{method.reducer} {rate_text(method.rate)}", describe_error(error))
            continue
        ran = cell.read("accuracy") or {"batch_size": plan.spec.batch_size}
        cells.append(Cell(key, cell, about, handle, ran["batch_size"]))
    return cells


def count_cost(plan: Plan, cells: list[Cell], progress: Progress) -> list[Cell]:
    """flops.json of every cell, in float32; cells that cannot be counted fail.

    On one real image; on several where the cost depends on the image.
    """
    todo = [cell for cell in cells if cell.folder.read("flops") is None]
    if not todo:
        return cells
    images = sample_images(plan, 1)
    baseline = count_flops(plan.model, images=images).total
    if any(cell.handle.planned_counts is None for cell in todo):
        images = sample_images(plan, COUNTED_ON)
    for cell in progress.steps("counting FLOPs", todo, name=lambda cell: cell.name):
        try:
            with cell.handle:
                report = count_flops(plan.model, images=images)
                further = plan.task.further_costs(plan.model, images, report.total, count_module)
            cell.folder.write("flops", {**report.as_dict(), "further": further, "baseline_total": baseline})
        except Exception as error:  # a method that breaks fails its cell, not the sweep
            cell.folder.fail(describe_error(error))
            progress.failed(cell.name, describe_error(error))
    return drop_failed(cells)


def score(plan: Plan, cells: Sequence[Cell], progress: Progress) -> None:
    """scores.json of every cell whose outcomes are not scored yet, by one scorer for all of them."""
    made_of, todo, by_key = {}, [], {cell.key: cell for cell in cells}
    version, scorable = plan.task.scoring_version(), set(plan.task.scorable())
    for cell in cells:
        outcomes = cell.folder.path / "samples.parquet"
        if not outcomes.exists():
            continue
        made_of[cell.key] = hashlib.sha256((file_sha256(outcomes) + version).encode()).hexdigest()
        stored = cell.folder.scores() or {"of": None, "scores": {}}
        unknown = [name for name, score in stored["scores"].items() if score["value"] is None]
        # what is known stays known, even where its scorer is not installed now
        if stored["of"] != made_of[cell.key] or scorable.intersection(unknown):
            todo.append(cell)
    with progress.scoring(len(todo)) as advance:
        for key, summary in plan.task.summaries(Outcomes(todo)):
            cell = by_key[key]
            if isinstance(summary, CellError):
                cell.folder.fail(str(summary))
                progress.failed(cell.name, str(summary))
                continue
            if summary.samples is not None:
                cell.folder.write_scores(summary.samples)
            scores = {name: asdict(score) for name, score in summary.scores.items()}
            about = {"of": made_of[key], "notes": list(summary.notes), "per_sample": summary.samples is not None}
            cell.folder.write("scores", {**about, "scores": scores})
            advance(cell.name, 1)


class Outcomes(Mapping[str, pd.DataFrame]):
    """The rows of complete cells by their keys, each read when it is asked for: those of all cells are many."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.shards = {cell.key: cell.folder.shards for cell in cells}

    def __getitem__(self, key: str) -> pd.DataFrame:
        return self.shards[key].outcomes()

    def __iter__(self) -> Iterator[str]:
        return iter(self.shards)

    def __len__(self) -> int:
        return len(self.shards)


def time_cells(
    plan: Plan,
    cells: Sequence[Cell],
    device: torch.device,
    progress: Progress,
    file: str,
    run: Callable[[torch.Tensor], Any] | None = None,
) -> None:
    """`file` (JSON) of every cell that lacks one of the runtimes asked for, in rounds that interleave them with the
    unreduced model.

    run: what is timed, default the backbone. On a CPU, no more than `WHOLE_ON_CPU` images then.
    """
    spec, asked = plan.spec, [EAGER] if run else list(plan.spec.runtime)
    sources = {name: source_of_runtime(name) for name in list_runtimes()}
    stored = {cell.key: (cell.folder.read(file) or {"runtimes": {}})["runtimes"] for cell in cells}
    todo = [cell for cell in cells if any(is_outdated(stored[cell.key].get(name), sources[name]) for name in asked)]
    images = timing_batch(plan) if todo else None
    if images is None:
        return
    # what was timed before is timed again beside it: all speeds of a cell are of the same rounds
    before = [name for cell in todo for name in stored[cell.key] if name in sources]
    runtimes = list(dict.fromkeys([*asked, *before]))
    if run is not None and device.type == "cpu":
        images = images[:WHOLE_ON_CPU]
    single = file == "single_speed"
    names = {cell.key: cell.name for cell in todo}
    reducing = {cell.key: cell.handle for cell in todo if cell.about["reducer"] != BASELINE}
    what = plan.task.shown.throughput if run else "im/s of encoders" if plan.task.shown.throughput else "cells"
    with progress.timing("single images" if single else what, len(todo) * len(runtimes)) as advance:
        results = measure_runtimes(
            plan.model,
            (images[:1] if single else images).to(device),
            reducing,
            runtimes,
            precision=spec.precision,
            rounds=spec.speed_rounds,
            least_forwards=SINGLE_FORWARDS if single else 1,
            run=run,
            progress=lambda done, blocks, what: advance(done, blocks, name_cells(what, names)),
        )
    for cell in todo:
        found = results[cell.key if cell.key in reducing else BASELINE]
        of = {name: result.as_dict() | {"source": sources[name]} for name, result in found.items()}
        cell.folder.write(file, {"runtimes": of})


def is_outdated(timed: dict[str, Any] | None, source: str) -> bool:
    """Whether a cell was not timed under a runtime, or the runtime's code has changed since."""
    return timed is None or timed.get("source", source) != source


def name_cells(what: str, names: dict[str, str]) -> str:
    """A message of the clock's, with the names of cells in place of their keys."""
    *before, key = what.split(" ")
    return " ".join([*before, names.get(key, key)])
