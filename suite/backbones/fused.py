"""A reducer's own projection as extra rows of the qkv product: one matrix product instead of two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from suite.backbones.modules import TENSORS, is_plain
from suite.reducers.base import Reducer
from suite.reducers.signals import BlockParts

Weights = tuple[Tensor, Tensor, int]


@dataclass(frozen=True)
class Place:
    """Memory of a block's weight and bias, how many rows are qkv's, and the parts that are copies of what it is of."""

    weights: Weights
    copies: tuple[Tensor, ...]

    def fits(self, sources: Sequence[Tensor]) -> bool:
        kinds = [[(t.shape, t.dtype, t.device) for t in tensors] for tensors in (self.copies, sources)]
        return kinds[0] == kinds[1]


class FusedProjections:
    """Per block, qkv's weight and bias with the reducer's extra rows below, written anew in every forward.

    Weights change in ways that nothing tells of (`parameter.data.copy_()`, as moving averages are swapped in), so none
    is believed to be what it was: the memory is kept, and one kernel copies what belongs there, for all blocks at once.

    Only for plain eager inference: a tracer has to see whose product it is, a compiler fuses by itself.
    """

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}

    def of(self, blocks: Iterable[BlockParts], reducer: Reducer) -> dict[int, Weights]:
        """By index, of those `blocks` where one product can be both: weight (3·H·d + D, C), bias, and 3·H·d."""
        if reducer.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return {}
        found: dict[int, Weights] = {}
        copies: list[Tensor] = []
        sources: list[Tensor] = []
        for parts in blocks:
            made_of = _sources(parts, reducer)
            if made_of:
                place = self._place(parts.index, made_of)
                copies += place.copies
                sources += made_of
                found[parts.index] = place.weights
        if copies:
            torch._foreach_copy_(copies, sources)
        return found

    def _place(self, block: int, sources: Sequence[Tensor]) -> Place:
        place = self._places.get(block)
        if place is None or not place.fits(sources):
            self._places[block] = place = make_place(sources)
        return place

    def clear(self) -> None:
        self._places.clear()


def _sources(parts: BlockParts, reducer: Reducer) -> list[Tensor]:
    """qkv's weight, the extra one, the extra bias and, where there is one, qkv's; empty where they cannot be fused."""
    linear, extra = parts.qkv_linear, reducer.extra_projection(parts.index)
    if linear is None or extra is None or not is_plain(linear):
        return []
    sources = [linear.weight, *extra, *([] if linear.bias is None else [linear.bias])]
    first = sources[0]
    same = all(type(t) in TENSORS and t.dtype == first.dtype and t.device == first.device for t in sources)
    return sources if same else []


def make_place(sources: Sequence[Tensor]) -> Place:
    """Memory for both, one below the other; a missing qkv bias is zeros."""
    weight, extra = sources[:2]
    rows = [len(weight), len(extra)]
    with torch.inference_mode(False):  # memory made within it could not be written to outside
        fused = weight.new_empty(sum(rows), weight.shape[1])
        bias = weight.new_zeros(sum(rows))
    own, below = bias.split(rows)
    return Place((fused, bias, rows[0]), (*fused.split(rows), below, own)[: len(sources)])
