"""torch.compile, for the unreduced model and its reduced variants side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from suite.measure.runtimes.base import Prepared, Runtime, frozen_copy, register


@register("compiled")
class Compiled(Runtime):
    """`torch.compile` for static shapes, on a copy that shares the model's weights."""

    compiler = "torch.compile"

    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        forward = torch.compile(frozen_copy(model), dynamic=False)
        breaks, start = graph_breaks(), time.perf_counter()
        with torch.inference_mode():
            forward(example)
        seconds, breaks = time.perf_counter() - start, graph_breaks() - breaks
        return Prepared(forward, seconds, (f"{self.compiler}: {breaks} graph break(s)",) if breaks else ())

    def peak_memory(self, prepared: Prepared, images: Tensor, model: nn.Module) -> int | None:
        """On a CPU a compiled kernel keeps its buffers to itself, and would be reported as free."""
        return None if images.device.type == "cpu" else super().peak_memory(prepared, images, model)

    @contextmanager
    def hold(self, models: int) -> Iterator[None]:
        """All variants run the same Python code; past torch's limit of 8 the ninth would silently run uncompiled."""
        import torch._dynamo  # takes seconds, and eager runs do without

        names = ("recompile_limit", "cache_size_limit")  # the second before torch 2.6
        name = next(name for name in names if hasattr(torch._dynamo.config, name))
        with torch._dynamo.config.patch({name: max(8, 2 * models)}):
            yield


def graph_breaks() -> int:
    """How often torch.compile has given up on a stretch of code so far in this process."""
    from torch._dynamo.utils import counters

    return sum(counters["graph_break"].values())
