"""A session on a GPU: cells are timed while there is time, and what is known so far is in a sealed file."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from suite.analyse.gpu.cells import DEVICES, Planned, TimedModel, predict_cell, sums_of
from suite.analyse.gpu.stages import Ask, Schedule, Stage, Trial
from suite.contract.baseline import BASELINE
from suite.contract.program import PROGRAM
from suite.errors import RequestError
from suite.measure.machine import describe_machine, device_name
from suite.measure.prediction.fitted import load_fit
from suite.measure.prediction.gpus import find_gpu
from suite.measure.runtimes import COMPILED
from suite.measure.speed import measure_runtimes
from suite.store.sealed import DamagedError, SealedFiles
from suite.sweep.progress import Progress

FORM = 1  # of the file


def find_cuda(name: str = "cuda") -> torch.device:
    """The CUDA device of that name. RequestError, one line, that says what is missing."""
    if not name.startswith("cuda"):
        raise RequestError(f"--device {name!r} is no CUDA device, and a GPU is what is measured; give cuda or cuda:1")
    if torch.version.cuda is None:
        raise RequestError("no CUDA: this PyTorch was built without it; install a build for CUDA (https://pytorch.org)")
    if not torch.cuda.is_available():
        raise RequestError(
            f"no CUDA device: PyTorch {torch.__version__} finds no NVIDIA GPU or driver here (does nvidia-smi list "
            f"one?); `{PROGRAM} predict` needs none"
        )
    try:
        device = torch.device(name)
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.get_device_properties(index)
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count()
        raise RequestError(f"--device {name!r} is not here; there are {count} CUDA device(s), from cuda:0") from error
    return torch.device("cuda", index)


def sheet_for(device: torch.device, gpu: str | None) -> str | None:
    """Key of the data sheet to predict from: the one that is named, else the one that is known to be the device's."""
    if gpu is not None:
        find_gpu(gpu)
        return gpu
    return DEVICES.get(device_name(device))


def measure_trial(
    trial: Trial, device: torch.device, gpu: str | None, seconds: float, folder: Path, progress: Progress
) -> tuple[Path, dict[str, Any]]:
    """Time what there is time for; returns the file and what it holds.

    The file is written after every group of cells: what ends the session early leaves what was measured before.
    gpu: the data sheet to predict from; None: as the device's name says. RequestError for one that is not known.
    """
    sheet, files, started = sheet_for(device, gpu), SealedFiles(folder), datetime.now(UTC)
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    name = f"{slug}-{started:%Y%m%d-%H%M%S}.json"
    schedule, begun = Schedule(trial, seconds), time.monotonic()
    about = {
        "form": FORM, "started": started.isoformat(timespec="seconds"), "device": device_name(device), "gpu": sheet,
        "fitted": load_fit().date, "machine": describe_machine(), "seconds": seconds, "trial": asdict(trial),
    }  # fmt: skip
    cells: list[dict[str, Any]] = []
    models: dict[str, TimedModel] = {}
    for number, (stage, group) in enumerate(schedule.groups()):
        if stage.model not in models:
            models[stage.model] = TimedModel(stage.model, trial, device)
        records = measure_group(models[stage.model], stage, group, sheet, progress)
        cells += [record | {"group": number} for record in records]
        content = about | {"took": time.monotonic() - begun, "cells": cells, "left_out": left_out(schedule)}
        files.write_json(name, content)
    if not cells:
        raise RequestError(f"{seconds / 60:g} minutes are too few for the first cells; give --minutes 10")
    return files.path(name), read_session(files.path(name))


def measure_group(
    timed: TimedModel, stage: Stage, group: Sequence[Ask], gpu: str | None, progress: Progress
) -> list[dict[str, Any]]:
    """The records of a group's cells, and of the unreduced model beside them."""
    trial = timed.trial
    titles = {f"{ask.method} {ask.target}": ask for ask in group}
    plans: dict[str, Planned | str] = {}
    with timed.on_device() as images:
        for title, ask in progress.steps(f"tracing {stage.model}", list(titles.items()), name=lambda item: item[0]):
            plans[title] = timed.plan(ask)
        handles = {title: timed.handle(plan) for title, plan in plans.items() if isinstance(plan, Planned)}
        with progress.timing(f"{stage.model} {stage.runtime}", len(handles) + 1) as update:
            found = measure_runtimes(
                timed.model, images, handles, [stage.runtime], precision=trial.precision, rounds=trial.rounds,
                min_block_s=trial.block_s, warmup_s=trial.warmup_s, progress=update,
            )  # fmt: skip
    if stage.runtime == COMPILED:
        torch.compiler.reset()  # what was compiled would count towards torch's limit of variants of the same code
    unreduced, shared = timed.unreduced, (stage.runtime, gpu, trial.batch_size, trial.precision)
    records = []
    for title in (BASELINE, *titles):
        cell, plan = titles.get(title), plans.get(title)
        planned = plan if isinstance(plan, Planned) else None
        trace = planned.trace if planned else unreduced if cell is None else None
        result = found[title][stage.runtime] if title in found else None
        untimed = result.note if result is not None and result.im_s is None else None
        records.append({
            "model": stage.model, "runtime": stage.runtime, "method": cell.method if cell else BASELINE,
            "target": cell and cell.target, "rate": planned and str(planned.rate),
            "reason": plan if isinstance(plan, str) else untimed,
            "measured": result and result.as_dict(),
            "predicted": predict_cell(trace, unreduced, *shared),
            "trace": sums_of(trace), "flops_ratio": trace and trace.macs / unreduced.macs,
        })  # fmt: skip
    return records


def left_out(schedule: Schedule) -> list[dict[str, Any]]:
    """Cells that there was no time for, by stage."""
    return [
        {"model": stage.model, "runtime": stage.runtime, "cells": [asdict(ask) for ask in asks]}
        for stage, asks in schedule.left.items()
        if asks
    ]


def read_session(file: Path) -> dict[str, Any]:
    """What `measure_trial` has written. RequestError where there is no such file, or one that is not what was written,
    such as one that was renamed."""
    try:
        content = SealedFiles(file.parent).read_json(file.name)
    except DamagedError as error:
        raise RequestError(
            f"{file} is not what was written ({error.reason}); have it sent again, name and all"
        ) from error
    if content is None:
        raise RequestError(f"{file} does not exist; give a file that `gpu` has written")
    if content.get("form") != FORM or "cells" not in content:
        raise RequestError(f"{file} is no file that `gpu` has written")
    return content
