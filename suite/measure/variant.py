"""One variant of a model that is to be timed: the unreduced one, or a cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from suite.attachment.handle import Handle
from suite.measure.compiled import compiled_copy, graph_breaks
from suite.measure.dispatch import attention_kernels
from suite.measure.timing import host_share, is_out_of_memory, warm_up


@dataclass
class Variant:
    """How to run it, what its blocks took, and why it could not be timed if so.

    model: what is reduced. forward: what is timed; the model, a compiled copy of it, or a whole that it is part of.
    expected, output: what every image came to in an untimed eager forward, and in the last timed one.
    """

    name: str
    model: nn.Module
    handle: Handle | None
    forward: Callable[[Tensor], Any]
    iterations: int = 1
    seconds: list[float] = field(default_factory=list)
    expected: list[Any] | None = None
    output: list[Any] | None = None
    attention: str | None = None
    compile_s: float | None = None
    host_share: float | None = None
    compiling: bool = False
    compiled: bool = False
    failed: str | None = None
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which `forward` is this variant's. That of a compiled copy always is."""
        handle = nullcontext() if self.handle is None or self.compiled else self.handle
        with handle:
            yield
        if self.handle is not None:
            self.handle.forget()


def prepare(variant: Variant, images: Tensor, compile: bool, settle_s: float, block_s: float) -> None:
    """Untimed forward, compilation, warm-up and the number of iterations a block needs; or `variant.failed`."""

    def ready() -> None:
        with variant.running(), torch.no_grad():
            variant.expected = answers_of(variant.forward(images))
            variant.attention = attention_kernels(variant.model, images[:1])
        if compile:
            _compile(variant, images)
        with variant.running():
            pace = warm_up(variant.forward, images, settle_s)
            variant.host_share = host_share(variant.forward, images)
        variant.iterations = max(1, ceil(block_s / pace))

    attempt(variant, images, ready)


def attempt(variant: Variant, images: Tensor, work: Callable[[], None]) -> None:
    """Do `work`; what goes wrong with a cell is `variant.failed`, and the other cells go on.

    Raises what goes wrong with the unreduced model, unless it is a lack of memory or the compiler's.
    """
    try:
        work()
        return
    except Exception as error:
        if not is_out_of_memory(error):
            if variant.handle is None and not variant.compiling:
                raise
            what = "torch.compile failed" if variant.compiling else "the forward failed"
            reason = next(iter(str(error).strip().splitlines()), "")
            variant.failed = f"{what}: {type(error).__name__}: {reason}"
            return
    # out here, where the traceback no longer holds the tensors that did not fit
    variant.failed = _out_of_memory(variant, images)


def _compile(variant: Variant, images: Tensor) -> None:
    variant.compiling = True
    with variant.running():
        variant.forward, variant.compiled = compiled_copy(variant.model), True
    breaks, start = graph_breaks(), time.perf_counter()
    with torch.inference_mode():
        variant.forward(images)
    variant.compile_s = time.perf_counter() - start
    variant.compiling = False
    if graph_breaks() > breaks:
        variant.notes.append(f"torch.compile: {graph_breaks() - breaks} graph break(s)")


def _out_of_memory(variant: Variant, images: Tensor) -> str:
    """What ran instead. A smaller batch is named and never timed: its images/s would not compare."""
    batch = len(images) // 2
    while batch:
        try:
            with variant.running(), torch.inference_mode():
                variant.forward(images[:batch])
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
