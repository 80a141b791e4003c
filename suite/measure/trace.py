"""What a forward would launch on a GPU: every operator with its shapes, without a GPU and without arithmetic.

Tensors that have a device, a type and a shape but no numbers run through the model (`FakeTensorMode`), so that every
kernel, byte and host read can be counted.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from suite.attachment.handle import handle_of
from suite.backbones import backbone_of, family_of
from suite.measure.kernels import Kernel, Trace
from suite.measure.memory import LiveTensors
from suite.measure.op_kernels import kernel_of
from suite.measure.precision import dtype_of

__all__ = ["Followed", "Trace", "trace_forward"]

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def trace_forward(
    model: nn.Module, batch_size: int = 256, precision: str = "bf16", image_size: tuple[int, int] | None = None
) -> Trace:
    """Kernels of a forward on (batch_size, 3, H, W) of a backbone with or without a reducer attached.

    The second forward of that shape: what is made once and kept is not counted. The model stays what it is.
    """
    model = backbone_of(model)
    dtype, handle = dtype_of(precision), handle_of(model)
    family = handle.family if handle else family_of(model)
    size = image_size or family.image_size(model)
    modules = [model] if handle is None else [model, handle.reducer]
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of tensors without numbers, that they have none
        shapes = fake_copy(model, modules, dtype)
        images = torch.empty(batch_size, 3, *size, device="cuda", dtype=dtype)
        with torch.inference_mode():
            for _ in range(2):  # what the first has taken apart is known to the second: half the time
                with Followed() as followed:
                    followed.watch([images, *shapes.parameters(), *shapes.buffers()])
                    shapes(images)
    return Trace(tuple(followed.kernels), followed.peak)


def fake_copy(model: nn.Module, modules: list[nn.Module], dtype: torch.dtype) -> nn.Module:
    """The model with what is attached to it, in evaluation, of tensors on a GPU that have no numbers."""
    memo: dict[int, Any] = {}
    for module in modules:
        for tensor in [*module.parameters(), *module.buffers()]:
            kind = dtype if tensor.is_floating_point() else tensor.dtype
            empty = torch.empty(tensor.shape, device="cuda", dtype=kind)
            memo[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    shapes = copy.deepcopy(model, memo)
    shapes.eval()
    handle = handle_of(shapes)
    if handle is not None:
        handle.reducer.eval()
    return shapes


class Followed(LiveTensors):
    """Keeps the kernel of every operator, composite ones taken apart, and how much memory is held."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []
        self._whole: set[Any] = {ATTENTION}  # what is not taken apart; asking takes longer than running

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten" and func not in self._whole:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            self._whole.add(func)
        out = attended(*args) if func is ATTENTION else func(*args, **kwargs)
        kernel = kernel_of(func, args, kwargs, out)
        if kernel is not None:
            self.kernels.append(kernel)
        self.watch(out)
        return out


def attended(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    """What fused attention returns: (B, H, N, d), which lies in memory as (B, N, H, d)."""
    batch, heads, count = query.shape[:3]
    return query.new_empty(batch, count, heads, value.shape[-1]).transpose(1, 2)
