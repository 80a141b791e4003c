"""Who has a device: those that evaluate share it, who times has it alone, among all processes of a user on a machine.

A process that waits to be alone stands at the turn, where those that share do not pass: it waits for the forwards that
are running, not for a run. The locks are the operating system's, and end with their process.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

AGAIN = 15.0  # seconds of waiting after which that is said again


@contextmanager
def sharing(device: torch.device, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Beside others that share the device; waits while one has it alone, and calls `wait` meanwhile."""
    with ExitStack() as held:
        with _held(_file(device, "turn"), fcntl.LOCK_SH, wait):
            held.enter_context(_held(_file(device, "use"), fcntl.LOCK_SH, wait))
        yield


@contextmanager
def alone(device: torch.device, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Without others on the device; `wait` is called while that takes waiting for some. Of a CPU, the machine."""
    with _held(_file(device, "turn"), fcntl.LOCK_EX, wait), _held(_file(device, "use"), fcntl.LOCK_EX, wait):
        yield


@contextmanager
def _held(path: Path, kind: int, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            with _said_again(wait):
                fcntl.flock(handle, kind)
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        with suppress(OSError):  # by itself, it would last as long as a process that was forked meanwhile
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


@contextmanager
def _said_again(wait: Callable[[], None]) -> Iterator[None]:
    """`wait` now and every `AGAIN` seconds, while the operating system keeps this process waiting in its line."""
    over = threading.Event()

    def again() -> None:
        while not over.wait(AGAIN):
            wait()

    wait()
    threading.Thread(target=again, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _file(device: torch.device, what: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"reducerbench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{_name(device)}.{what}"


def _name(device: torch.device) -> str:
    """The same for a device in every process of the machine, whatever number it has there."""
    if device.type != "cuda":
        return device.type
    return str(torch.cuda.get_device_properties(device).uuid)
