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
    """first: seconds of the very first call. calls: of each further one. seconds: that all these took together."""

    first: float
    calls: list[float]
    seconds: float

    @property
    def per_second(self) -> float:
        return len(self.calls) / self.seconds


def time_calls(call: Call, warm_up: int, count: int) -> Times:
    """One caller: the first call by itself, `warm_up` untimed ones, then `count`."""
    first = _seconds(call)
    for _ in range(warm_up):
        call()
    with _uncollected():
        start = time.perf_counter()
        calls = [_seconds(call) for _ in range(count)]
        return Times(first, calls, time.perf_counter() - start)


def time_closed_loop(call: Call, callers: int, count: int) -> Times:
    """`callers` callers, each of which asks again as soon as it was answered, before one worker that answers them in
    turn; `count` answers in all. A caller's time includes its wait in the queue. `first` is the first answer's.
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
    return Times(times[0][0], calls, seconds)


def _seconds(call: Call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class _uncollected:
    """Context without garbage collection, which is not the model's time."""

    def __enter__(self) -> None:
        self.on = gc.isenabled()
        gc.disable()

    def __exit__(self, *exception: object) -> None:
        if self.on:
            gc.enable()
