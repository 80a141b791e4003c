"""Forwards of cells on decoded batches, and what is scored beside them.

Nothing stands between two forwards: outputs go to a second thread, which lets the task measure them on their device,
copies what is left to the host, makes rows of it and hands these on, while the next forwards run.
"""

from __future__ import annotations

import os
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from suite.attachment.handle import Handle
from suite.attachment.shared_prefix import SharedPrefix
from suite.contract.task import Batch, ReadError, Sample, Task
from suite.errors import CellError, MachineError, OutputError, describe_error, is_out_of_memory
from suite.measure.exclusive import sharing
from suite.measure.precision import dtype_of, float32_products
from suite.sweep.answers import Answers
from suite.sweep.plan import Plan

TIMED_ALONE = "another command of this machine is timing; waiting for it"
AHEAD = 2  # outputs that wait to be scored: what is in them stays on the device so long
HANDOVER = 5e-4  # seconds after which scoring lets the forwards' thread go on; Python's own 5 ms is a whole forward


@dataclass
class Cell:
    """A cell that is being executed. batch_size: the largest forward that fits the memory."""

    key: str
    handle: Handle
    batch_size: int


class Sink(Protocol):
    """Takes what becomes of batches. `decoded` is called before any of a batch's rows is made."""

    def decoded(self, number: int, samples: Sequence[Sample], errors: Sequence[ReadError]) -> None:
        """A batch was read: its samples with what their files held, and those that cannot be read."""

    def scored(self, cell: Cell, number: int, rows: pa.RecordBatch) -> None:
        """A cell's rows of a batch; from another thread than the rest."""

    def failed(self, cell: Cell, number: int, reason: str) -> None:
        """A cell that goes no further than a batch; from either thread."""


@dataclass
class Work:
    """Cells of one plan and the batches that each of them is to be run on, by its key; `done` with what is found."""

    plan: Plan
    cells: Sequence[Cell]
    todo: dict[str, set[int]]
    sink: Sink
    failed: set[str] = field(default_factory=set)

    def pending(self, number: int) -> Iterator[Cell]:
        """The cells that batch `number` is still to be put through, each when it is its turn."""
        for cell in self.cells:
            if cell.key not in self.failed and number in self.todo[cell.key]:
                yield cell

    @property
    def over(self) -> bool:
        return all(cell.key in self.failed for cell in self.cells)

    def fail(self, cell: Cell, number: int, reason: str) -> None:
        if cell.key not in self.failed:
            self.failed.add(cell.key)
            self.sink.failed(cell, number, reason)


def evaluate(
    works: Sequence[Work],
    decoded: Iterable[tuple[int, Batch]],
    device: torch.device,
    note: Callable[[str], None] = lambda line: None,
) -> None:
    """Put numbered batches through all cells that are to see them, whatever models these are of, in one precision.

    A cell that fails is handed to its sink with the reason, and the others go on. Raises what a sink raises. note: is
    told what is waited for.
    """
    precision = works[0].plan.spec.precision
    answers = [Answers(work.plan.model, work.plan.spec.scored_in) for work in works]
    with float32_products(precision), _scorer() as scorer:
        behind: deque[Future[None]] = deque()
        for number, batch in _until_failure(decoded, works):
            for work in works:
                work.sink.decoded(number, batch.samples, batch.errors)
            if all(work.over for work in works):
                break
            if not batch.samples:
                continue
            images = batch.images.to(device, dtype_of(precision), non_blocking=True)
            for work, answer in zip(works, answers, strict=True):
                prefix = SharedPrefix(images)
                with sharing(device, lambda: note(TIMED_ALONE)):
                    for cell in work.pending(number):
                        cell.handle.prefix = prefix
                        try:
                            parts = forward(work.plan.task, answer, cell, images, batch)
                        except CellError as error:
                            work.fail(cell, number, f"batch {number}: {error}")
                            continue
                        behind.append(scorer.submit(_score, work, cell, number, parts))
                        if len(behind) > AHEAD:
                            behind.popleft().result()
        for left in behind:
            left.result()


def _until_failure(decoded: Iterable[tuple[int, Batch]], works: Sequence[Work]) -> Iterator[tuple[int, Batch]]:
    """The batches, as long as the machine can read any; then all cells fail that are not done."""
    try:
        yield from decoded
    except MachineError as error:
        for work in works:
            for cell in work.cells:
                work.fail(cell, 0, str(error))


Part = tuple[Sequence[Sample], Any]
"""Some of a batch's samples, and the model's outputs for them."""


def forward(task: Task, answers: Answers, cell: Cell, images: Tensor, batch: Batch) -> list[Part]:
    """Outputs of a cell's model for a batch, whose images are on its device now; out of memory halves it and goes on.

    CellError for an output that has no meaning, a method that breaks, and tokens that were not reduced as planned.
    """
    samples, done = batch.samples, 0
    parts: list[Part] = []
    first = [0, *accumulate(batch.views)]  # image of each sample
    try:
        with cell.handle, torch.inference_mode(), repeatable(images.device):
            while done < len(samples):
                rest = slice(done, min(done + cell.batch_size, len(samples)))
                try:  # a whole batch is passed on as it is, for what methods share is known by it
                    part = images[first[rest.start] : first[rest.stop]] if cell.batch_size < len(samples) else images
                    outputs = task.predict_samples(answers.of(cell.key), part, samples[rest])
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
                if answers.eager:  # an exported graph has the shapes that it was planned with
                    check_counts(cell.handle)
                parts.append((samples[rest], outputs))
                done = rest.stop
    except CellError:
        raise
    except Exception as error:  # a method that breaks on this model fails its cell, not the sweep
        raise CellError(f"from sample {samples[0].id!r} on: {describe_error(error)}") from error
    finally:
        cell.handle.forget()
        cell.handle.prefix = None
    return parts


def rows_of(task: Task, parts: Sequence[Part]) -> pa.RecordBatch:
    """Rows of a batch, from its outputs. CellError that names the sample of an output that has no meaning."""
    with torch.inference_mode():
        measured = [(samples, to_host(task.measure(outputs, samples))) for samples, outputs in parts]
    found = [task.columns(values, samples) for samples, values in measured]
    return found[0] if len(found) == 1 else pa.Table.from_batches(found).combine_chunks().to_batches()[0]


def to_host(measured: Any) -> Any:
    """Its tensors on the CPU, by way of pinned memory: one wait for all of them."""
    events = []

    def copy(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cuda":
            return tensor.cpu()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
        events.append(torch.cuda.current_stream(tensor.device).record_event())
        return host

    found = pytree.tree_map_only(Tensor, copy, measured)
    for event in events[-1:]:  # of one stream: the last is after the others
        event.synchronize()
    return found


@contextmanager
def _scorer() -> Iterator[ThreadPoolExecutor]:
    """The thread that scores. It has one core: threads of its own would wait for its small pieces of work by spinning,
    and take the forwards' cores."""
    threads, handover = torch.get_num_threads(), sys.getswitchinterval()
    sys.setswitchinterval(HANDOVER)
    try:
        with ThreadPoolExecutor(1, "scorer", torch.set_num_threads, (1,)) as scorer:
            yield scorer
    finally:
        sys.setswitchinterval(handover)
        torch.set_num_threads(threads)  # of threads that begin after this; this one's number was never another


def _score(work: Work, cell: Cell, number: int, parts: Sequence[Part]) -> None:
    try:
        rows = rows_of(work.plan.task, parts)
    except CellError as error:
        work.fail(cell, number, f"batch {number}: {error}")
    except Exception as error:  # outputs that the task has no place for
        work.fail(cell, number, f"batch {number}, from sample {parts[0][0][0].id!r} on: {describe_error(error)}")
    else:
        work.sink.scored(cell, number, rows)


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
