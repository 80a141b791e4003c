"""Executes a plan: the only place that knows the order of things.

Every cell is counted, evaluated and timed from its folder's state: what is stored is not done again. Images are decoded
once for all cells, and one copy of the backbone serves them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from suite.batches import load, sample_images, timing_batch
from suite.errors import CellError, RequestError
from suite.handle import Handle
from suite.measure.flops import count_flops
from suite.measure.machine import describe_machine
from suite.measure.precision import dtype_of
from suite.measure.speed import measure_speed
from suite.measure.timing import is_out_of_memory
from suite.plan import BASELINE, Plan, resolve_device
from suite.progress import Progress
from suite.shared_prefix import SharedPrefix
from suite.store.files import once
from suite.store.folder import CellFolder, RunFolder
from suite.task import ReadError, Sample

SOLVED_ON, COUNTED_ON = 16, 32  # images, for methods whose cost depends on the image


@dataclass
class Cell:
    """A cell that is being executed."""

    key: str
    folder: CellFolder
    about: dict[str, Any]
    handle: Handle
    batch_size: int

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.about["reducer"], self.about["rate"]) if part)


def execute(plan: Plan, progress: Progress, keys: Sequence[str] | None = None) -> None:
    """Run the cells `keys` (default: all) of a plan to the end. Cells that fail are recorded and do not stop others."""
    folder = plan.open_folder()
    once(folder.path / "environment.json", describe_machine)
    device = resolve_device(plan.spec.device)
    model = plan.model.to(device)
    cells = prepare(plan, folder, keys or list(plan.asks), progress)
    cells = count_cost(plan, folder, cells, progress)
    model.to(dtype_of(plan.spec.precision))
    evaluate(plan, folder, cells, device, progress)
    cells = [cell for cell in cells if cell.folder.read("failed") is None]
    if plan.spec.speed:
        time_cells(plan, cells, device, progress)


def prepare(plan: Plan, folder: RunFolder, keys: Sequence[str], progress: Progress) -> list[Cell]:
    """Describe every cell in its folder, once; a FLOPs target that cannot be reached fails its cell."""
    cells = []
    for key in progress.steps("resolving rates", keys):
        cell, ask = folder.cell(key), plan.asks[key]
        cell.clear_failure()
        about = cell.read("cell") or plan.describe(key)
        try:
            if about["resolved_rate"] is None:
                about |= plan.resolve(key, lambda: sample_images(plan, SOLVED_ON))
            cell.write("cell", about)
            handle = plan.handle(ask, about["resolved_rate"])
        except Exception as error:  # also what a method's own code raises while its cost is counted
            cell.write("cell", about)
            cell.fail(said(error))
            progress.failed(f"{ask.reducer} {ask.rate}", said(error))
            continue
        ran = cell.read("accuracy") or {"batch_size": plan.spec.batch_size}
        cells.append(Cell(key, cell, about, handle, ran["batch_size"]))
    return cells


def count_cost(plan: Plan, folder: RunFolder, cells: list[Cell], progress: Progress) -> list[Cell]:
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
            cell.folder.write("flops", {**report.as_dict(), "baseline_total": baseline})
        except Exception as error:  # a method that breaks fails its cell, not the sweep
            cell.folder.fail(said(error))
            progress.failed(cell.name, said(error))
    return [cell for cell in cells if cell.folder.read("failed") is None]


def evaluate(plan: Plan, folder: RunFolder, cells: list[Cell], device: torch.device, progress: Progress) -> None:
    """Score every sample that a cell has no stored outcome for, batch by batch, each batch for all cells at once."""
    spec, task = plan.spec, plan.task
    missing = {record["id"]: record for record in still_unreadable(plan, folder.read_missing())}
    batches = [task.samples[i : i + spec.batch_size] for i in range(0, len(task.samples), spec.batch_size)]

    def expected() -> list[list[str]]:
        return [[sample.id for sample in batch if sample.id not in missing] for batch in batches]

    todo = {cell.key: set(cell.folder.shards.missing(expected())) for cell in cells}
    numbers = sorted(set().union(*todo.values()))
    total = sum(len(batches[number]) for pending in todo.values() for number in pending)
    alive = {cell.key: cell for cell in cells}
    with progress.images(total, len(cells)) as advance:
        for number, batch in load(plan, [batches[n] for n in numbers], numbers):
            for error in batch.errors:
                missing[error.id] = {"id": error.id, "path": error.path, "reason": error.reason}
            if batch.errors:
                folder.write_missing([missing[id] for id in sorted(missing)])
            if not alive:
                break
            images = batch.images.to(device, dtype_of(spec.precision), non_blocking=True)
            prefix = SharedPrefix(images)
            for cell in [cell for cell in alive.values() if number in todo[cell.key]]:
                cell.handle.prefix = prefix
                try:
                    rows = outcomes(plan, cell, images, batch.samples, number)
                except CellError as error:
                    cell.folder.fail(str(error))
                    progress.failed(cell.name, str(error))
                    del alive[cell.key]
                    continue
                cell.folder.shards.write(number, rows)
                advance(cell.name, len(batches[number]))
    folder.write_missing([missing[id] for id in sorted(missing)])
    for cell in alive.values():
        finish(cell, expected(), list(missing.values()), spec.allow_missing, progress)


def outcomes(plan: Plan, cell: Cell, images: Tensor, samples: list[Sample], number: int) -> list[dict[str, Any]]:
    """Rows of one batch. CellError that names batch and sample for an output that has no meaning."""
    if not samples:
        return []
    try:
        with cell.handle:
            logits = predict(cell, plan.model, images)
        return plan.task.score(logits, samples)
    except CellError as error:
        raise CellError(f"batch {number}: {error}") from error
    except Exception as error:  # a method that breaks on this model fails its cell, not the sweep
        raise CellError(f"batch {number}, from sample {samples[0].id!r} on: {said(error)}") from error
    finally:
        cell.handle.forget()
        cell.handle.prefix = None


def said(error: Exception) -> str:
    """One line; with the type of an error that is not ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, RequestError | CellError) else f"{type(error).__name__}: {text}"


def predict(cell: Cell, model: nn.Module, images: Tensor) -> Tensor:
    """Logits (B, K); out of memory halves the batch and goes on. CellError if tokens were not reduced as planned."""
    parts: list[Tensor] = []
    done = 0
    with torch.inference_mode(), repeatable(images.device):
        while done < len(images):
            try:
                part = images[done : done + cell.batch_size] if cell.batch_size < len(images) else images
                parts.append(model(part))
            except RuntimeError as error:
                if not is_out_of_memory(error) or cell.batch_size == 1:
                    raise
                cell.batch_size = (cell.batch_size + 1) // 2
                if images.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            check_counts(cell.handle)
            done += cell.batch_size
    return torch.cat(parts)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, sums in a fixed order, so that a resumed run scores what an uninterrupted one does; not for timing."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)


def check_counts(handle: Handle) -> None:
    """CellError unless every block passed on as many tokens as planned: one that reduces nothing looks excellent."""
    planned, observed = handle.planned_counts, handle.token_counts
    if planned is not None and planned != observed:
        block = next(i for i, (p, o) in enumerate(zip(planned, observed, strict=True)) if p != o)
        raise CellError(f"block {block} passed on {observed[block]} tokens, but the rate plans {planned[block]}")


def still_unreadable(plan: Plan, records: list[dict[str, str]]) -> list[dict[str, str]]:
    """The records whose samples cannot be read today either; a repaired image is scored with the rest."""
    samples = {sample.id: sample for sample in plan.task.samples}
    preprocessing = plan.task.preprocessing(plan.model, plan.spec.image_size)
    kept = []
    for record in records:
        try:
            plan.task.load(samples[record["id"]], preprocessing)
        except ReadError as error:
            kept.append({"id": error.id, "path": error.path, "reason": error.reason})
    return kept


def finish(
    cell: Cell, batches: list[list[str]], missing: list[dict[str, str]], allowed: int, progress: Progress
) -> None:
    """Close a cell whose readable samples are all scored; it fails if more are missing than allowed."""
    cell.folder.shards.compact(batches)
    cell.folder.write("accuracy", {"batch_size": cell.batch_size})
    if len(missing) > allowed:
        first = missing[0]
        more = f" and {len(missing) - 1} more (missing.jsonl)" if len(missing) > 1 else ""
        reason = f"unreadable image {first['path'] or first['id']}: {first['reason']}{more}"
        cell.folder.fail(f"{reason}; repair it, or pass --allow-missing {len(missing)}")
        progress.failed(cell.name, reason)


def time_cells(plan: Plan, cells: list[Cell], device: torch.device, progress: Progress) -> None:
    """speed.json of every cell that has none, in rounds that interleave them with the unreduced model."""
    todo = [cell for cell in cells if cell.folder.read("speed") is None]
    if not todo:
        return
    spec = plan.spec
    names = {cell.key: cell.name for cell in todo}
    images = timing_batch(plan)
    if images is None:
        return
    reducing = {cell.key: cell.handle for cell in todo if cell.about["reducer"] != BASELINE}
    with progress.timing(len(todo)) as advance:
        results = measure_speed(
            plan.model,
            images.to(device),
            reducing,
            precision=spec.precision,
            compile=spec.compile,
            rounds=spec.speed_rounds,
            progress=lambda done, blocks, what: advance(done, blocks, named(what, names)),
        )
    for cell in todo:
        cell.folder.write("speed", results[cell.key if cell.key in reducing else BASELINE].as_dict())


def named(what: str, names: dict[str, str]) -> str:
    """A message of the clock's, with the names of cells in place of their keys."""
    *before, key = what.split(" ")
    return " ".join([*before, names.get(key, key)])
