"""Batches that worker processes read ahead: that one dies is noticed, and tried again with fewer once."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from multiprocessing.connection import wait
from queue import Empty, SimpleQueue
from typing import Any

from torch.utils.data import DataLoader

from suite.errors import MachineError, what_ran_out

Keys = list[Any]  # of the items of a batch
Make = Callable[[Iterable[Keys], int], DataLoader[Any]]
LOOK = 1.0  # seconds between looks at the workers, while a batch is waited for
SILENCE = 15.0  # seconds without a batch after which that is said
GONE = "exited unexpectedly"  # torch's words, also of a reader that ended before it could be seen here
AT_ONCE = "a process that reads images ended at once"
LAST = 5.0  # seconds that a reader is given to end; one that a disk does not answer is left behind


def read_ahead(
    make: Make, batches: Iterable[Keys], workers: int, note: Callable[[str], None] = lambda line: None
) -> Iterator[Any]:
    """What a loader of `make` reads of batches, in their order, one ahead of what is worked on.

    batches: asked for when there is room to read ahead, by another thread. note: is told what goes on where nothing
    comes. MachineError where workers die, or memory ends, with half as many, too.
    """
    asked = _Asked(batches)
    fewer = max(1, workers // 2)  # never this process itself: what kills a worker would kill it
    for last, number in ((False, workers), (True, fewer)):
        try:
            yield from _read(make(asked.begin(), number), asked, note)
            return
        except Exception as error:
            if not (isinstance(error, MachineError) or what_ran_out(error)):
                raise
            why = str(error) if isinstance(error, MachineError) else f"reading runs out of {what_ran_out(error)}"
            if last or not workers:
                raise MachineError(why) from error
            note(f"{why}; tried again with {fewer} of {workers} workers")


class _Asked:
    """Batches that are asked for, those first that a loader that is no more did not give."""

    def __init__(self, batches: Iterable[Keys]) -> None:
        self.rest, self.begun = iter(batches), deque[Keys]()
        self.loader = 0

    def begin(self) -> Iterator[Keys]:
        """For the next loader; one before it, if a thread of it is still alive, is at its end."""
        self.loader += 1
        again = list(self.begun)
        self.begun.clear()
        return self._of(self.loader, again)

    def _of(self, loader: int, again: list[Keys]) -> Iterator[Keys]:
        for batch in chain(again, self.rest):
            self.begun.append(batch)
            yield batch
            if loader != self.loader:
                return


class _Reader(threading.Thread):
    """Takes from `source` what is wanted, one by one; a thread that no end of the program waits for."""

    def __init__(self, source: Iterator[Any]) -> None:
        super().__init__(name="reader", daemon=True)
        self.source = source
        self.wanted, self.found = SimpleQueue[bool](), SimpleQueue[tuple[str, Any]]()

    def run(self) -> None:
        while self.wanted.get():
            try:
                self.found.put(("batch", next(self.source)))
            except StopIteration:
                self.found.put(("end", None))
            except BaseException as error:
                self.found.put(("error", error))


def _read(loader: DataLoader[Any], asked: _Asked, note: Callable[[str], None]) -> Iterator[Any]:
    before = set(multiprocessing.active_children())
    source = _iterate(loader)
    workers = set(multiprocessing.active_children()) - before
    reader = _Reader(source)
    reader.start()
    reader.wanted.put(True)
    try:
        while True:
            kind, found = _wait(reader, workers, note)
            if kind == "error":
                if isinstance(found, ConnectionError | EOFError):  # who broke off may not have ended yet
                    _await_end(workers)
                if dead := _dead(workers) or (
                    AT_ONCE if isinstance(found, RuntimeError) and GONE in str(found) else ""
                ):
                    raise MachineError(dead) from found
                raise found
            if kind == "end":
                return
            asked.begun.popleft()
            reader.wanted.put(True)
            yield found
    finally:
        if _dead(workers):  # what it held stays locked: the others would wait for that, and the end for them
            for worker in workers:
                worker.kill()
        reader.wanted.put(False)
        reader.join(LAST)


def _iterate(loader: DataLoader[Any]) -> Iterator[Any]:
    """Without torch's handler, which raises in the main thread when a worker dies, wherever that is at the time."""
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    if before is None or getattr(before, "__module__", "").startswith("torch."):  # of another loader
        before = signal.SIG_DFL
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, before)


def _wait(reader: _Reader, workers: set[Any], note: Callable[[str], None]) -> tuple[str, Any]:
    """What the reader finds. MachineError for a dead worker without whom it will find nothing."""
    start = said = time.monotonic()
    while True:
        try:
            return reader.found.get(timeout=LOOK)
        except Empty:
            if dead := _dead(workers):
                raise MachineError(dead) from None
            if time.monotonic() - said > SILENCE:
                said = time.monotonic()
                note(f"no image has come for {said - start:.0f} s; the data, or who reads them, does not answer")


def _await_end(workers: set[Any]) -> None:
    """Until one of them has ended."""
    ended = wait([worker.sentinel for worker in workers], LAST)
    for worker in workers:
        if worker.sentinel in ended:
            worker.join(LAST)


def _dead(workers: set[Any]) -> str:
    """How a worker ended that should not have."""
    for worker in workers:
        if worker.exitcode:
            how = f"was killed by {signal.Signals(-worker.exitcode).name}" if worker.exitcode < 0 else "ended"
            why = ", as where memory runs out" if worker.exitcode == -signal.SIGKILL else ""
            return f"a process that reads images {how}{why}"
    return ""
