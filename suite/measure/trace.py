"""What a forward would launch on a GPU: every operator with its shapes, without a GPU and without arithmetic.

Tensors that have a device, a type and a shape but no numbers run through the model (`FakeTensorMode`), so that every
kernel, byte and host read can be counted.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

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
    """Kernels of a forward on (batch_size, C, H, W) of a backbone with or without a reducer attached.

    The second forward of that shape: what is made once and kept is not counted. The model stays what it is.
    DataDependentOutputException where a method reads a number, which is not there: see `trace_images`.
    """
    model = backbone_of(model)
    dtype, handle = dtype_of(precision), handle_of(model)
    family = handle.family if handle else family_of(model)
    size = image_size or family.image_size(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of tensors without numbers, that they have none
        with FakeTensorMode() as mode:
            tensors = converted(model, dtype, lambda like: torch.empty(like.shape, device="cuda", dtype=like.dtype))
            images = torch.empty(batch_size, family.channels(model), *size, device="cuda", dtype=dtype)
        shapes = copy_of(model, tensors)
        with mode:
            return follow(shapes, images)


def trace_images(model: nn.Module, images: Tensor, precision: str = "bf16") -> Trace:
    """The same of a forward on images (B, 3, H, W) with its arithmetic, where the model is: for what reads numbers."""
    model = backbone_of(model)
    dtype, weight = dtype_of(precision), next(model.parameters())
    return follow(copy_of(model, converted(model, dtype, Tensor.detach)), images.to(weight.device, dtype))


def follow(model: nn.Module, images: Tensor) -> Trace:
    """The kernels of the second of two forwards. Of the first nothing is kept: it makes what is made once, and has the
    shapes of all operators known, which takes less time where nobody follows."""
    with torch.inference_mode():
        model(images)
        with Followed() as followed, ReadWhole(followed.kernels):
            followed.watch([images, *model.parameters(), *model.buffers()])
            model(images)
    return Trace(tuple(followed.kernels), followed.peak)


def converted(model: nn.Module, dtype: torch.dtype, make: Callable[[Tensor], Tensor]) -> dict[int, Any]:
    """What stands for each tensor of a model and of the reducer on it, by the tensor's id: made by `make`."""
    handle, found = handle_of(model), {}
    for module in [model] if handle is None else [model, handle.reducer]:
        for tensor in [*module.parameters(), *module.buffers()]:
            made = make(tensor)
            made = made.to(dtype) if tensor.is_floating_point() else made
            found[id(tensor)] = nn.Parameter(made, False) if isinstance(tensor, nn.Parameter) else made
    return found


def copy_of(model: nn.Module, tensors: dict[int, Any]) -> nn.Module:
    """The model with what is attached to it, in evaluation, made of other tensors."""
    copied = copy.deepcopy(model, tensors)
    copied.eval()
    handle = handle_of(copied)
    if handle is not None:
        handle.reducer.eval()
    return copied


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
        fused = func is ATTENTION and isinstance(args[0], FakeTensor)
        out = attended(*args) if fused else func(*args, **kwargs)
        kernel = kernel_of(func, args, kwargs, out)
        if kernel is not None:
            self.kernels.append(kernel)
        self.watch(out)
        return out


class ReadWhole(TorchFunctionMode):
    """Keeps what hands a whole tensor to the CPU, which no dispatcher sees where the tensor is there already."""

    def __init__(self, kernels: list[Kernel]) -> None:
        super().__init__()
        self.kernels = kernels

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.cpu):
            self.kernels.append(Kernel(func.__name__, 1, 0, host_read=True))
        return func(*args, **(kwargs or {}))


def attended(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    """What fused attention returns: (B, H, N, d), which lies in memory as (B, N, H, d)."""
    batch, heads, count = query.shape[:3]
    return query.new_empty(batch, count, heads, value.shape[-1]).transpose(1, 2)
