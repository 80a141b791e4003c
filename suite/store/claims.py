"""Claims of work: which of the processes on one run puts a cell through a batch, kept by the operating system.

A claim is a lock of one byte of a file that has none, so it ends with its process, however that ends, and needs no
clock. On a file system without locks everything is everybody's: work is done twice, and stored once.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

BATCHES = 2**24  # bytes a cell
CELLS = 2**38  # cells that differ in this share bytes: they wait for each other


class Claims:
    """The batches of cells, by their numbers and keys, that are this process' own; all are given up at the end of the
    `with`.

    One object a file and process: the system does not tell apart who in a process holds a lock.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def take(self, key: str, number: int) -> bool:
        """Whether it is this process' own, now or already."""
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _first(key) + number)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def give_up(self, key: str) -> None:
        """All batches of a cell: who waits for them does them."""
        with suppress(OSError):
            fcntl.lockf(self._handle, fcntl.LOCK_UN, BATCHES, _first(key))

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)


def _first(key: str) -> int:
    return int(key, 16) % CELLS * BATCHES
