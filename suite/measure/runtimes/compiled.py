"""torch.compile, for the unreduced model and its reduced variants side by side."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from suite.attachment.handle import handle_of
from suite.measure.runtimes.base import Prepared, Runtime, register


@register("compiled")
class Compiled(Runtime):
    """`torch.compile` for static shapes, on a copy that shares the model's weights."""

    compiler = "torch.compile"

    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        forward = compiled_copy(model)
        breaks, start = graph_breaks(), time.perf_counter()
        with torch.inference_mode():
            forward(example)
        seconds, breaks = time.perf_counter() - start, graph_breaks() - breaks
        return Prepared(forward, seconds, (f"{self.compiler}: {breaks} graph break(s)",) if breaks else ())

    @contextmanager
    def hold(self, models: int) -> Iterator[None]:
        """All variants run the same Python code; past torch's limit of 8 the ninth would silently run uncompiled."""
        import torch._dynamo  # takes seconds, and eager runs do without

        names = ("recompile_limit", "cache_size_limit")  # the second before torch 2.6
        name = next(name for name in names if hasattr(torch._dynamo.config, name))
        with torch._dynamo.config.patch({name: max(8, 2 * models)}):
            yield


def compiled_copy(model: nn.Module) -> Callable[..., Any]:
    """A compiled copy of the model as it is now, with what is attached to it, sharing the original's weights.

    But for those that the method brought: they leave the original when it is detached.
    """
    handle = handle_of(model)
    own = {id(tensor) for tensor in handle.swapped} if handle else set()
    tensors = [*model.parameters(), *model.buffers()]
    weights = {id(tensor): tensor for tensor in tensors if id(tensor) not in own}
    return torch.compile(copy.deepcopy(model, weights), dynamic=False)


def graph_breaks() -> int:
    """How often torch.compile has given up on a stretch of code so far in this process."""
    from torch._dynamo.utils import counters

    return sum(counters["graph_break"].values())
