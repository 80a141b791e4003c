"""Predictions of every cell for every sample: each batch of images is decoded once, for all cells at once."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from suite.attachment.handle import Handle
from suite.attachment.shared_prefix import SharedPrefix
from suite.contract.task import Batch, ReadError, Task
from suite.errors import CellError, OutputError, describe_error
from suite.measure.precision import dtype_of
from suite.measure.timing import is_out_of_memory
from suite.store.folder import CellFolder, RunFolder
from suite.sweep.changes import Contents, note_contents
from suite.sweep.images import load
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress


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


def evaluate(
    plan: Plan, folder: RunFolder, cells: list[Cell], device: torch.device, known: Contents, progress: Progress
) -> None:
    """Score every sample that a cell has no stored outcome for, batch by batch, each batch for all cells at once.

    known: what the samples' files held when they were read before. RequestError for one that holds something else.
    """
    spec, task = plan.spec, plan.task
    missing = {record["id"]: record for record in still_unreadable(plan, folder.read_missing())}
    batches = [task.samples[i : i + spec.batch_size] for i in range(0, len(task.samples), spec.batch_size)]

    def expected() -> list[list[str]]:
        return [[sample.id for sample in batch if sample.id not in missing] for batch in batches]

    todo = {cell.key: set(cell.folder.shards.missing(expected())) for cell in cells}
    numbers = sorted(set().union(*todo.values()))
    total = sum(len(batches[number]) for pending in todo.values() for number in pending)
    alive = {cell.key: cell for cell in cells}
    for cell in cells:
        if todo[cell.key]:
            cell.folder.remove_scores()
    with progress.images(total, len(cells)) as advance:
        for number, batch in load(plan, [batches[n] for n in numbers], numbers):
            for error in batch.errors:
                missing[error.id] = {"id": error.id, "path": error.path, "reason": error.reason}
            if batch.errors:
                folder.write_missing([missing[id] for id in sorted(missing)])
            if not alive:
                break
            note_contents(folder, number, batch.samples, known)
            images = batch.images.to(device, dtype_of(spec.precision), non_blocking=True)
            prefix = SharedPrefix(images)
            for cell in [cell for cell in alive.values() if number in todo[cell.key]]:
                cell.handle.prefix = prefix
                try:
                    rows = outcomes(plan, cell, images, batch, number)
                except CellError as error:
                    cell.folder.fail(str(error))
                    progress.failed(cell.name, str(error))
                    del alive[cell.key]
                    continue
                cell.folder.shards.write(number, rows, task.outcomes)
                advance(cell.name, len(batches[number]))
    folder.write_missing([missing[id] for id in sorted(missing)])
    folder.contents.compact(expected())
    for cell in alive.values():
        finish(cell, expected(), list(missing.values()), spec.allow_missing, progress)


def outcomes(plan: Plan, cell: Cell, images: Tensor, batch: Batch, number: int) -> list[dict[str, Any]]:
    """Rows of one batch, whose images are on the model's device now. CellError that names batch and sample for an
    output that has no meaning."""
    samples = batch.samples
    if not samples:
        return []
    try:
        with cell.handle:
            return predict(plan.task, plan.model, cell, images, batch)
    except CellError as error:
        raise CellError(f"batch {number}: {error}") from error
    except Exception as error:  # a method that breaks on this model fails its cell, not the sweep
        raise CellError(f"batch {number}, from sample {samples[0].id!r} on: {describe_error(error)}") from error
    finally:
        cell.handle.forget()
        cell.handle.prefix = None


def predict(task: Task, model: nn.Module, cell: Cell, images: Tensor, batch: Batch) -> list[dict[str, Any]]:
    """Rows of a batch, whose images are on the model's device now; out of memory halves it and goes on.

    CellError if tokens were not reduced as planned.
    """
    samples = batch.samples
    rows: list[dict[str, Any]] = []
    first = [0, *accumulate(batch.views)]  # image of each sample
    with torch.inference_mode(), repeatable(images.device):
        while len(rows) < len(samples):
            rest = slice(len(rows), min(len(rows) + cell.batch_size, len(samples)))
            try:  # a whole batch is passed on as it is, for what methods share is known by it
                part = images[first[rest.start] : first[rest.stop]] if cell.batch_size < len(samples) else images
                outputs = task.predict(model, part)
            except OutputError as error:
                of = bisect_right(first, first[rest.start] + error.row) - 1
                raise CellError(f"sample {samples[of].id!r}: {error}") from error
            except RuntimeError as error:
                if not is_out_of_memory(error) or cell.batch_size == 1:
                    raise
                cell.batch_size = (cell.batch_size + 1) // 2
                if images.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            check_counts(cell.handle)
            rows += task.score(outputs, samples[rest])
    return rows


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
    if handle.unplanned:
        raise CellError(handle.unplanned)


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
    if cell.folder.read("accuracy") != (ran := {"batch_size": cell.batch_size}):
        cell.folder.write("accuracy", ran)
    if len(missing) > allowed:
        first = missing[0]
        more = f" and {len(missing) - 1} more (missing.jsonl)" if len(missing) > 1 else ""
        reason = f"unreadable image {first['path'] or first['id']}: {first['reason']}{more}"
        cell.folder.fail(f"{reason}; repair it, or pass --allow-missing {len(missing)}")
        progress.failed(cell.name, reason)
