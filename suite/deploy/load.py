"""Times that a caller of a service sees: one caller after another, and several at once before one queue."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Queue
from threading import Thread

import torch

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
    """
    queue: Queue[Queue[None] | None] = Queue()
    shares = [count // callers + (caller < count % callers) for caller in range(callers)]
    times: list[list[float]] = [[] for _ in shares]

    def work() -> None:
        with torch.inference_mode():
            while (answer := queue.get()) is not None:
                call()
                answer.put(None)

    def ask(caller: int) -> None:
        answer: Queue[None] = Queue()
        for _ in range(shares[caller]):
            begin = time.perf_counter()
            queue.put(answer)
            answer.get()
            times[caller].append(time.perf_counter() - begin)

    worker = Thread(target=work)
    askers = [Thread(target=ask, args=(caller,)) for caller in range(callers)]
    with _uncollected():
        start = time.perf_counter()
        for thread in (worker, *askers):
            thread.start()
        for thread in askers:
            thread.join()
        seconds = time.perf_counter() - start
    queue.put(None)
    worker.join()
    calls = [taken for of in times for taken in of]
    return Times(calls, seconds)


class _uncollected:
    """Context without garbage collection, which is not the model's time."""

    def __enter__(self) -> None:
        self.on = gc.isenabled()
        gc.disable()

    def __exit__(self, *exception: object) -> None:
        if self.on:
            gc.enable()
