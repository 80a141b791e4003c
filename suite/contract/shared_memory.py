"""Tensors on their way between processes: in shared memory where that has room, else by value.

torch moves them there as they are sent, in a thread whose errors nobody hears: without room (containers have 64 MB
unless they are told otherwise) a batch is lost, and who waits for it waits for ever.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

PLACE = Path("/dev/shm")


def share(tensors: Any) -> None:
    """Move tensors, in any nesting, to shared memory, as far as there is room."""
    for tensor in pytree.tree_leaves(tensors):
        if not PLACE.is_dir() or shutil.disk_usage(PLACE).free > tensor.nbytes:
            with suppress(RuntimeError):  # another process has taken the room meanwhile
                tensor.share_memory_()


def sendable(tensors: Any) -> Any:
    """What to send of tensors on the CPU: those that lie in shared memory, of the rest the values."""
    return pytree.tree_map(lambda tensor: tensor if tensor.is_shared() else tensor.numpy(), tensors)


def received(sent: Any) -> Any:
    """The tensors again."""
    return pytree.tree_map(torch.as_tensor, sent)
