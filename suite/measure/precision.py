"""Running a model in half precision and giving it its weights back afterwards, to the bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from suite.errors import RequestError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def dtype_of(precision: str) -> torch.dtype:
    """RequestError for a precision that is not fp32, fp16 or bf16."""
    if precision not in DTYPES:
        raise RequestError(f"precision {precision!r} is not known; use one of {', '.join(DTYPES)}")
    return DTYPES[precision]


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
