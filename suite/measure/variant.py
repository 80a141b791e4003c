"""One variant of a model that is to be timed: the unreduced one, or a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from suite.attachment.handle import Handle
from suite.errors import is_out_of_memory
from suite.measure.dispatch import attention_kernels
from suite.measure.runtimes.base import Prepared, Runtime
from suite.measure.timing import Block, Forward, host_share, time_once, warm_up


class NotPreparedError(Exception):
    """The runtime could not make a variant ready. The text is one line."""


@dataclass
class Variant:
    """How to run it, its timed blocks, and why it could not be timed if so.

    model: what is reduced. run: what is timed, as it is, of a whole that the model is a part of; None: the model, made
    ready by the runtime. disturbed: blocks of rounds that were timed again. expected, output: what every image came to
    in an eager forward before all rounds, and in the last timed one. first_s: seconds of that forward of a whole, its
    first.
    """

    name: str
    model: nn.Module
    handle: Handle | None
    runtime: Runtime
    run: Forward | None = None
    prepared: Prepared | None = None
    iterations: int = 1
    blocks: list[Block] = field(default_factory=list)
    disturbed: list[Block] = field(default_factory=list)
    first_s: float | None = None
    expected: list[Any] | None = None
    output: list[Any] | None = None
    attention: str | None = None
    host_share: float | None = None
    failed: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """Per forward, block by block."""
        return [block.seconds for block in self.blocks]

    @property
    def forward(self) -> Forward:
        return self.prepared.forward if self.prepared else self.run or self.model

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Context in which the model is this variant's."""
        with self.handle or nullcontext():
            yield
        if self.handle is not None:
            self.handle.forget()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which `forward` is this variant's. What was compiled always is."""
        with nullcontext() if self.prepared and self.runtime.compiler else self.attached():
            yield

    @property
    def reads_map(self) -> bool:
        """Whether the method asks for whole attention maps, which the kernels of fused attention do not make."""
        reducer = self.handle.reducer if self.handle else None
        return reducer is not None and reducer.reads_map

    def peak_memory(self, images: Tensor) -> int | None:
        """Bytes; None where nobody knows."""
        if self.run is not None and images.device.type == "cpu":
            return None  # to follow every operator of a whole model takes longer than all rounds
        with self.running():
            prepared = self.prepared or Prepared(self.forward)
            return self.runtime.peak_memory(prepared, images, self.model)

    def prepare(self, images: Tensor) -> Prepared:
        """What is timed, ready for batches of this shape."""
        with self.attached():
            return Prepared(self.run) if self.run else self.runtime.prepare(self.model, images)


def make_ready(variant: Variant, images: Tensor, settle_s: float, block_s: float, least: int = 1) -> None:
    """First forward, preparation, warm-up and the forwards of a block, `least` or more; or `variant.failed`."""

    def ready() -> None:
        with variant.attached(), torch.no_grad():
            if variant.run is not None and variant.handle is None:
                variant.forward(images[:1])  # what a process pays once is not the unreduced model's, which is first
            seconds, output = time_once(variant.forward, images)
            variant.first_s = seconds if variant.run is not None else None
            variant.expected = answers_of(output)
            variant.attention = attention_kernels(variant.model, images[:1])
        variant.prepared = _prepare(variant, images)
        variant.notes += variant.prepared.notes
        with variant.running():
            pace = warm_up(variant.forward, images, settle_s)
            variant.host_share = host_share(variant.forward, images)
        variant.iterations = max(least, ceil(block_s / pace))

    attempt(variant, images, ready)


def attempt(variant: Variant, images: Tensor, work: Callable[[], None]) -> None:
    """Do `work`; what goes wrong with a cell is `variant.failed`, and the other cells go on.

    Raises what goes wrong with the unreduced model, unless it is a lack of memory or the compiler's.
    """
    try:
        work()
        return
    except NotPreparedError as error:
        variant.failed = str(error)
        return
    except Exception as error:
        if not is_out_of_memory(error):
            if variant.handle is None:
                raise
            variant.failed = f"the forward failed: {_first_line(error)}"
            return
    # out here, where the traceback no longer holds the tensors that did not fit
    variant.failed = _out_of_memory(variant, images)


def _prepare(variant: Variant, images: Tensor) -> Prepared:
    """NotPreparedError for whatever goes wrong in it but a lack of memory."""
    try:
        return variant.prepare(images)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise NotPreparedError(f"{variant.runtime.compiler} failed: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def _out_of_memory(variant: Variant, images: Tensor) -> str:
    """What ran instead. A smaller batch is named and never timed: its images/s would not compare."""
    batch = len(images) // 2
    while batch:
        try:
            smaller = variant.prepare(images[:batch])
            with variant.attached(), torch.inference_mode():
                smaller.forward(images[:batch])
            return f"OOM at batch {len(images)}; largest that ran: {batch}"
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        batch //= 2
    return f"OOM at batch {len(images)}, and at every smaller one"


def answers_of(output: Any) -> list[Any] | None:
    """What each of the B images came to: the class of the highest logit, or its item of a list; None for features."""
    if isinstance(output, list):
        return output
    logits = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
    return logits.argmax(-1).tolist() if logits is not None and logits.dim() == 2 else None
