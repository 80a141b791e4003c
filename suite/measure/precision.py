"""Running a model in half precision and giving it its weights back afterwards, to the bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from suite.errors import RequestError

TF32 = "tf32"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, TF32: torch.float32}
AMPERE = (8, 0)  # compute capability of the first cards that have TF32


def dtype_of(precision: str) -> torch.dtype:
    """Of weights and images: tf32 is float32 whose products are rounded. RequestError for an unknown precision."""
    if precision not in DTYPES:
        raise RequestError(f"precision {precision!r} is not known; use one of {', '.join(DTYPES)}")
    return DTYPES[precision]


def check_precision(precision: str, device: torch.device) -> None:
    """RequestError for one that the device does not have."""
    dtype_of(precision)
    if precision == TF32 and (device.type != "cuda" or torch.cuda.get_device_capability(device) < AMPERE):
        raise RequestError(f"precision {TF32!r} needs a CUDA device, Ampere or newer; use fp32 or bf16")


def tf32_setting() -> str:
    """What of float32 may be rounded to TF32 on CUDA: 'off', 'convolutions' (torch's own setting), 'products', or both.

    The user sets it by `torch.set_float32_matmul_precision`, `torch.backends` or TORCH_ALLOW_TF32_CUBLAS_OVERRIDE.
    """
    return " and ".join(name for name, of in rounded().items() if of.fp32_precision == TF32) or "off"


def rounded() -> dict[str, Any]:
    """What torch may round, and where it is told."""
    cudnn: Any = torch.backends.cudnn
    return {"products": torch.backends.cuda.matmul, "convolutions": cudnn.conv}


def float32_products(precision: str) -> AbstractContextManager[None]:
    """Context in which products of float32 are rounded to TF32 where `precision` is tf32; else as the user has set."""
    return _rounding_to(TF32) if precision == TF32 else nullcontext()


def exact_float32() -> AbstractContextManager[None]:
    """Context in which nothing is rounded to TF32 but by `float32_products`."""
    return _rounding_to("ieee")


@contextmanager
def _rounding_to(setting: str) -> Iterator[None]:
    before = {name: of.fp32_precision for name, of in rounded().items()}
    try:
        for of in rounded().values():
            of.fp32_precision = setting
        yield
    finally:
        for name, of in rounded().items():
            of.fp32_precision = before[name]


@contextmanager
def in_precision(modules: Iterable[nn.Module], precision: str) -> Iterator[None]:
    """Floating-point weights and buffers of `modules` in `precision` meanwhile, converted as a deployment does.

    The modules stay the same objects, so that whatever is attached to them stays attached. The original weights wait
    in main memory, where they do not count as the GPU's.
    """
    dtype = dtype_of(precision)
    kept: list[tuple[nn.Module, str, Tensor, Tensor, torch.device]] = []
    seen: dict[int, Tensor] = {}
    try:
        for module in {m: None for root in modules for m in root.modules()}:
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is None or not tensor.is_floating_point() or tensor.dtype == dtype:
                    continue
                kept.append((module, name, tensor, tensor.data.cpu(), tensor.device))
                if name in module._parameters:
                    tensor.data = tensor.data.to(dtype)
                else:
                    module._buffers[name] = seen.setdefault(id(tensor), tensor.to(dtype))
        yield
    finally:
        for module, name, tensor, original, device in kept:
            if name in module._parameters:
                tensor.data = original.to(device)
            else:
                module._buffers[name] = tensor
