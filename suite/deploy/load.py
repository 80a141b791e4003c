"""Times that a caller of a service sees: one caller after another, and several at once before one queue."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Queue
from threading import Thread

Call = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """calls: seconds of each. seconds: that all of them took together."""

    calls: list[float]
    seconds: float


def time_call(call: Call) -> float:
    """Seconds."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def time_calls(call: Call, count: int) -> Times:
    """One caller, who asks again as soon as it was answered."""
    with _uncollected():
        start = time.perf_counter()
        calls = [time_call(call) for _ in range(count)]
        return Times(calls, time.perf_counter() - start)


def time_closed_loop(call: Call, callers: int, count: int) -> Times:
    """`callers` callers, each of which asks again as soon as it was answered, before one worker that answers them in
    turn; `count` answers in all. A caller's time includes its wait in the queue.

    The worker is the thread that calls this: PyTorch keeps a pool of threads for each thread that calls it, and two
    pools would contend for the cores.
    """
    queue: Queue[Queue[None]] = Queue()
    shares = [count // callers + (caller < count % callers) for caller in range(callers)]
    times: list[list[float]] = [[] for _ in shares]

    def ask(caller: int) -> None:
        answer: Queue[None] = Queue()
        for _ in range(shares[caller]):
            begin = time.perf_counter()
            queue.put(answer)
            answer.get()
            times[caller].append(time.perf_counter() - begin)

    askers = [Thread(target=ask, args=(caller,), daemon=True) for caller in range(callers)]
    with _uncollected():
        start = time.perf_counter()
        for thread in askers:
            thread.start()
        for _ in range(count):
            answer = queue.get()
            call()
            answer.put(None)
        for thread in askers:
            thread.join()
        seconds = time.perf_counter() - start
    return Times([taken for of in times for taken in of], seconds)


class _uncollected:
    """Context without garbage collection, which is not the model's time."""

    def __enter__(self) -> None:
        self.on = gc.isenabled()
        gc.disable()

    def __exit__(self, *exception: object) -> None:
        if self.on:
            gc.enable()
