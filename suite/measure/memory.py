"""Peak memory of one forward, in a pass of its own so that no clock is running."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory_bytes(forward: Callable[[Tensor], Any], images: Tensor, model: nn.Module) -> int | None:
    """Largest number of bytes in tensors at any moment of `forward(images)`, weights and images included.

    As in inference: no activation waits for a backward pass. On CUDA the allocator's own peak, work space of kernels
    included (also whatever else this process holds on the device). On a CPU the bytes of all live tensors, followed
    operator by operator: what a kernel allocates and frees inside itself is not seen. None on other devices.
    """
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
        torch.cuda.reset_peak_memory_stats(images.device)
        with torch.inference_mode():
            forward(images)
        torch.cuda.synchronize(images.device)
        return torch.cuda.max_memory_allocated(images.device)
    if images.device.type != "cpu":
        return None
    with torch.no_grad(), LiveTensors() as live:  # inference mode would hide what composite operators allocate
        live.watch([images, *model.parameters(), *model.buffers()])
        forward(images)
    return live.peak


class LiveTensors(TorchDispatchMode):
    """Sums the storages of all tensors that operators return, for as long as somebody holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def watch(self, tensors: Any) -> None:
        for tensor in tree_leaves(tensors):
            if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known:  # a view of something that is counted already
                continue
            self._known.add(key)
            self.now += storage.nbytes()
            # torch hands out one Python object for a storage as long as the storage lives
            weakref.finalize(storage, self._forget, key, storage.nbytes()).atexit = False
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.watch(out)
        return out
