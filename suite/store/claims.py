"""Claims of batches: which of the processes that work on one run does which, kept by the operating system.

A claim is a lock of one byte of a file that has none, so it ends with its process, however that ends, and needs no
clock. On a file system without locks every batch is everybody's: work is done twice, and stored once.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType


class Claims:
    """Batches by their numbers, as this process holds them; all are given up at the end of the `with`.

    One object a file and process: the system does not tell apart who in a process holds a lock.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def take(self, number: int) -> bool:
        """Whether the batch is this process' own, now or already."""
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
