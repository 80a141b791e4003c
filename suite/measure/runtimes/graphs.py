"""CUDA graphs: a forward recorded once and launched as one, so that the CPU's time for each launch is paid no more."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from suite.attachment.handle import handle_of
from suite.measure.runtimes.base import Prepared, Runtime, frozen_copy, register

WARM_UP = 3
"""Forwards before capture, as torch advises: libraries choose kernels and take their work space, constants are made."""


@register("graphs")
class Graphs(Runtime):
    """A captured forward with an input of its own, replayed. Needs CUDA."""

    compiler = "CUDA graph capture"
    exact = True

    def __init__(self) -> None:
        self._first: torch.cuda.CUDAGraph | None = None

    def runs_on(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        """What a replay returns is overwritten by the next replay of any model that this runtime has prepared."""
        handle = handle_of(model)
        if handle is not None and handle.planned_counts is None:
            raise ValueError("how many tokens stay depends on the image, and a graph is of one shape")
        start = time.perf_counter()
        copied, held = frozen_copy(model), GraphInput(example)
        with torch.inference_mode(), torch.cuda.device(example.device):
            *_, before, expected = warm_up(copied, held.images)
            torch.cuda.reset_peak_memory_stats()
            graph = torch.cuda.CUDAGraph()
            # one pool for all: only one graph runs at a time, and each would keep the activations of a forward
            with torch.cuda.graph(graph, pool=self._first.pool() if self._first else None):
                output = copied(held.images)
            peak = torch.cuda.max_memory_allocated()
            if (kept := handle_of(copied)) is not None:
                kept.forget()  # its features would stay in the pool
            graph.replay()
        self._first = self._first or graph

        def forward(images: Tensor) -> Any:
            held.load(images)
            graph.replay()
            return output

        return Prepared(forward, time.perf_counter() - start, differences(output, expected, before), peak)

    def peak_memory(self, prepared: Prepared, images: Tensor, model: nn.Module) -> int | None:
        """That of the capture: a replay asks the allocator for nothing."""
        return prepared.peak


class GraphInput:
    """The batch that a graph reads, in memory of its own, and which tensor it was copied from last."""

    def __init__(self, example: Tensor) -> None:
        self.images = example.clone()
        self._source, self._version = example, version_of(example)

    def load(self, images: Tensor) -> None:
        """Copy a batch in, unless it lies there unchanged. ValueError for one of another shape."""
        if images.shape != self.images.shape:
            raise ValueError(f"a graph of batches {tuple(self.images.shape)} was given one of {tuple(images.shape)}")
        version = version_of(images)
        if version is None or images is not self._source or version != self._version:
            self.images.copy_(images)
            self._source, self._version = images, version


def version_of(tensor: Tensor) -> int | None:
    """Grows with every change in place; None of an inference tensor, which counts none."""
    return None if tensor.is_inference() else tensor._version


def warm_up(model: nn.Module, images: Tensor) -> list[Any]:
    """What some forwards on a stream of their own return."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        outputs = [model(images) for _ in range(WARM_UP)]
    torch.cuda.current_stream().wait_stream(side)
    return outputs


def differences(replayed: Any, eager: Any, again: Any) -> tuple[str, ...]:
    """A note where a replay is not bit by bit what the eager forward returned, and what two eager ones differ by."""
    if (apart := largest_difference(replayed, eager)) == 0:
        return ()
    return (
        f"the first replay differs from the eager forward by up to {apart:.1e}, two eager forwards by up to "
        f"{largest_difference(eager, again):.1e}",
    )


def largest_difference(first: Any, second: Any) -> float:
    """Between the tensors of two outputs of one form; infinite where only one of them is a number."""
    largest = 0.0
    for one, other in zip(tree_leaves(first), tree_leaves(second), strict=True):
        if isinstance(one, Tensor) and not torch.equal(one, other):
            apart = (one.double() - other.double()).abs()
            same = (one == other) | (one.isnan() & other.isnan())
            largest = max(largest, float(apart.masked_fill(same, 0).nan_to_num(nan=float("inf")).max()))
    return largest
