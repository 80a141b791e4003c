"""Small tensors that depend on shapes alone, made once: positions, first rows, masks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

MOST = 256  # of each kind; a sweep over many rates meets no more lengths than an image has patches

Known = OrderedDict[Hashable, Tensor]


def remembered(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator: what was made for these arguments is handed out again; nobody may write into it.

    An ordinary tensor whatever mode asked for it, so that what inference made serves training as well. A compiler, a
    tracer and a CUDA graph that is being captured get one of their own; so does every `FakeTensorMode`.
    """
    real: Known = OrderedDict()
    fake: WeakKeyDictionary[FakeTensorMode, Known] = WeakKeyDictionary()

    @wraps(make)
    def constant(*key: Any) -> Tensor:
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_capturing():
            return make(*key)
        modes = _get_current_dispatch_mode_stack()
        mode = next((mode for mode in modes if isinstance(mode, FakeTensorMode)), None) if modes else None
        known = real if mode is None else fake.setdefault(mode, OrderedDict())
        found = known.get(key)
        if found is None:
            with torch.inference_mode(False):
                found = make(*key)
            if mode is None and type(found) is not Tensor:  # some other mode's own kind
                return found
            known[key] = found
            if len(known) > MOST:
                known.popitem(last=False)
        return found

    return constant


def is_capturing() -> bool:
    """A CUDA graph is being captured: what is made now belongs to it, and holds nothing until it is replayed."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


@remembered
def positions(first: int, last: int, step: int, device: torch.device) -> Tensor:
    """(1, K) int64: first, first + step, ... below last."""
    return torch.arange(first, last, step, device=device)[None]


@remembered
def first_rows(batch: int, count: int, offset: int, device: torch.device) -> Tensor:
    """(B, 1) int64: where each sample begins in the flattened batch of sequences of `count` tokens, plus `offset`."""
    return torch.arange(batch, device=device)[:, None] * count + offset


@remembered
def rows(batch: int, count: int, first: int, last: int, step: int, device: torch.device) -> Tensor:
    """(B, K) int64: rows of the flattened batch that hold the positions first, first + step, ... below last."""
    return first_rows(batch, count, 0, device) + positions(first, last, step, device)


@remembered
def ones(batch: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(B, K) ones."""
    return torch.ones(batch, count, dtype=dtype, device=device)
