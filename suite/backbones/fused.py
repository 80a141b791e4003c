"""A reducer's own projection as extra rows of the qkv product: one matrix product instead of two."""

from __future__ import annotations

import torch
from torch import Tensor

from suite.reducers.base import Reducer
from suite.reducers.signals import BlockParts

Weights = tuple[Tensor, Tensor | None]


class FusedProjections:
    """Per block, qkv's weight and bias with the reducer's extra rows below; made again whenever either has changed.

    Only for plain eager inference: a tracer has to see whose product it is, a compiler fuses by itself and cannot see
    a later change, and in training weights change with every step. Writing through `.data` while model and reducer stay
    in evaluation is not noticed.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[list[Tensor], tuple[int, ...], Weights]] = {}

    def of(self, parts: BlockParts, reducer: Reducer) -> Weights | None:
        """Weight (3·H·d + D, C) and bias for a block whose reducer has an extra projection; None where not possible."""
        if reducer.training:  # an optimiser may write through `.data`, which no version counter tells of
            self.clear()
            return None
        extra = reducer.extra_projection(parts.index)
        linear = parts.qkv_linear
        if extra is None or linear is None or torch.is_grad_enabled():
            return None
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return None
        sources = [tensor for tensor in (linear.weight, linear.bias, *extra) if tensor is not None]
        same = all(t.dtype == linear.weight.dtype and t.device == linear.weight.device for t in sources)
        if not same or any(tensor.is_inference() for tensor in sources):  # those do not tell when they change
            return None
        state = tuple(value for tensor in sources for value in (tensor.data_ptr(), tensor._version))
        known = self._made.get(parts.index)
        if known is None or known[1] != state or any(a is not b for a, b in zip(known[0], sources)):
            self._made[parts.index] = known = (sources, state, fuse(linear.weight, linear.bias, *extra))
        return known[2]

    def clear(self) -> None:
        self._made.clear()


def fuse(weight: Tensor, bias: Tensor | None, extra_weight: Tensor, extra_bias: Tensor) -> Weights:
    """Rows of both, one below the other; a missing qkv bias is zeros."""
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    return torch.cat([weight, extra_weight]).detach(), torch.cat([bias, extra_bias]).detach()
