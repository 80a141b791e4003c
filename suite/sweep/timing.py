"""Speeds of cells: which of them are still to be timed, and timing them in rounds beside the unreduced model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from suite.attachment.handle import Handle
from suite.contract.baseline import BASELINE
from suite.measure.exclusive import alone
from suite.measure.runtimes import EAGER, list_runtimes
from suite.measure.speed import measure_runtimes
from suite.sweep.images import timing_batch
from suite.sweep.lane import Lane, StoredCell, drop_failed
from suite.sweep.plan import Plan, source_of_runtime
from suite.sweep.progress import Progress

SINGLE_FORWARDS = 100  # so many have a 99th percentile
WHOLE_ON_CPU = 16  # images of a timed batch: more take seconds a forward there, and no less time an image
SPEED, SINGLE, WHOLE = "speed", "single_speed", "whole_speed"
"""What is timed, by the file (JSON) that holds it: the backbone, the backbone on single images, the whole model."""

Report = Callable[[int, int, str], None]  # blocks done, blocks in all, what is running
Timed = dict[str, dict[str, Any]]
"""By the keys of cells, BASELINE for the unreduced model: what a file of speeds says."""


@dataclass(frozen=True)
class Timing:
    """Cells that lack one of the runtimes asked for in a file of speeds, and the runtimes that they are timed under."""

    file: str
    cells: Sequence[StoredCell]
    runtimes: Sequence[str]


def time_lane(lane: Lane, device: torch.device, progress: Progress) -> None:
    """All timings that are asked for of the cells that have not failed, alone on the device, in common rounds."""
    if not files_of(lane.plan):
        return
    with alone(device, lambda: progress.note("another run is on this device; timing waits until it is free")):
        for file in files_of(lane.plan):
            timing = find_untimed(lane.plan, drop_failed(lane.cells), file)
            if not timing.cells:
                continue
            handles = {cell.key: cell.handle for cell in timing.cells if cell.about["reducer"] != BASELINE}
            with progress.timing(title(lane.plan, file), len(timing.cells) * len(timing.runtimes)) as advance:
                report = partial(_report, advance, {cell.key: cell.name for cell in timing.cells})
                keep(timing.cells, file, time_cells(lane.plan, handles, file, timing.runtimes, device, report))


def files_of(plan: Plan) -> list[str]:
    """The files of speeds that are asked for."""
    single, whole = plan.spec.latency, bool(plan.task.shown.throughput)
    return [SPEED, *[SINGLE] * single, *[WHOLE] * whole] if plan.spec.speed else []


def title(plan: Plan, file: str) -> str:
    whole = plan.task.shown.throughput
    return {SINGLE: "single images", WHOLE: whole}.get(file, "im/s of encoders" if whole else "cells")


def find_untimed(plan: Plan, cells: Sequence[StoredCell], file: str, device: str | None = None) -> Timing:
    """What is to be timed of some cells. What was timed before is timed again beside it: all speeds of a cell are of
    the same rounds.

    device: what was timed on one of another name is to be timed as well.
    """
    cells = [cell for cell in cells if plan.methods[cell.key].timed]
    sources = {name: source_of_runtime(name) for name in list_runtimes()}
    asked = [EAGER] if file == WHOLE else list(plan.spec.runtime)
    stored = {cell.key: (cell.folder.read(file) or {"runtimes": {}})["runtimes"] for cell in cells}
    todo = [
        cell for cell in cells if any(is_outdated(stored[cell.key].get(name), sources[name], device) for name in asked)
    ]
    before = [name for cell in todo for name in stored[cell.key] if name in sources]
    return Timing(file, todo, list(dict.fromkeys([*asked, *before])))


def is_outdated(timed: dict[str, Any] | None, source: str, device: str | None) -> bool:
    """Whether a cell was not timed under a runtime, on the device, or the runtime's code has changed since."""
    return timed is None or timed.get("source", source) != source or device not in (None, timed.get("device"))


def time_cells(
    plan: Plan,
    handles: Mapping[str, Handle],
    file: str,
    runtimes: Sequence[str],
    device: torch.device,
    report: Report | None = None,
) -> Timed:
    """Rounds of the unreduced model and of the cells whose handles are given, on a batch of the run's own images.

    Nothing where no image can be read.
    """
    images = timing_batch(plan)
    if images is None:
        return {}
    if file == WHOLE and device.type == "cpu":
        images = images[:WHOLE_ON_CPU]
    results = measure_runtimes(
        plan.model,
        (images[:1] if file == SINGLE else images).to(device),
        handles,
        runtimes,
        precision=plan.spec.precision,
        rounds=plan.spec.speed_rounds,
        least_forwards=SINGLE_FORWARDS if file == SINGLE else 1,
        run=partial(plan.task.predict, plan.model) if file == WHOLE else None,
        progress=report,
    )
    return {
        key: {name: result.as_dict() | {"source": source_of_runtime(name)} for name, result in found.items()}
        for key, found in results.items()
    }


def keep(cells: Sequence[StoredCell], file: str, timed: Timed) -> None:
    """Write down what was timed of some cells."""
    for cell in cells if timed else ():
        found = timed[BASELINE if cell.about["reducer"] == BASELINE else cell.key]
        cell.folder.write(file, {"runtimes": found})


def _report(advance: Report, names: Mapping[str, str], done: int, blocks: int, what: str) -> None:
    """A message of the clock's, with the names of cells in place of their keys."""
    *before, key = what.split(" ")
    advance(done, blocks, " ".join([*before, names.get(key, key)]))
