"""Tensors on their way between processes: in shared memory where that has room, else by value.

torch moves them there as they are sent, in a thread whose errors nobody hears: without room (containers have 64 MB
unless they are told otherwise) a batch is lost, and who waits for it waits for ever.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import Tensor

PLACE = Path("/dev/shm")


def share(tensor: Tensor) -> None:
    """Move a tensor to shared memory, if there is room."""
    if not PLACE.is_dir() or shutil.disk_usage(PLACE).free > tensor.nbytes:
        with suppress(RuntimeError):  # another process has taken the room meanwhile
            tensor.share_memory_()


def sendable(tensor: Tensor) -> Tensor | np.ndarray:
    """What to send of a tensor on the CPU: itself, where the other process finds it, else its values."""
    return tensor if tensor.is_shared() else tensor.numpy()
