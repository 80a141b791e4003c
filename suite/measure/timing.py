"""The clock: blocks of forwards, warm-up until the pace is steady, and what a few rounds say about a pace."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.measure.energy import joules_between, joules_so_far

Forward = Callable[[Tensor], Any]

STEADY = 0.01
"""Warm-up ends when two successive medians differ by less than this."""


@dataclass(frozen=True)
class Interval:
    """Median of the rounds, and the 95 % interval around it; low and high are None for a single round."""

    median: float
    low: float | None
    high: float | None


def interval_of(values: Sequence[float]) -> Interval:
    """Median with Student's 95 % interval of the mean logarithm, stretched to hold the median where it does not.

    Rounds are few and their noise multiplies, so logarithms; five rounds with 1 % spread give ±1.2 %. A
    bootstrap of five values would promise more than five values can know.
    """
    from scipy.stats import t  # a second to import, which a run without timing need not wait for

    centre = median(values)
    if len(values) < 2:
        return Interval(centre, None, None)
    logs = [math.log(value) for value in values]
    mean = sum(logs) / len(logs)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in logs) / (len(logs) - 1))
    half = float(t.ppf(0.975, len(logs) - 1)) * deviation / math.sqrt(len(logs))
    return Interval(centre, min(math.exp(mean - half), centre), max(math.exp(mean + half), centre))


@dataclass(frozen=True)
class Block:
    """A row of forwards. seconds: per forward. forwards: seconds of each, none on devices that do not tell.

    joules: of all `launched` forwards, which on a GPU are one more than are timed (`measure.energy`). output: of
    the last one.
    """

    seconds: float
    forwards: list[float]
    output: Any
    joules: float | None = None
    launched: int = 0


def time_block(forward: Forward, images: Tensor, iterations: int) -> Block:
    """CUDA events around every forward, or the CPU's counter."""
    collecting = gc.isenabled()
    gc.disable()  # a collection inside a block is not the model's time
    try:
        with torch.inference_mode():
            if images.device.type == "cuda":
                return _time_on_cuda(forward, images, iterations)
            before = joules_so_far(images.device)
            marks = [time.perf_counter()]
            for _ in range(iterations):
                out = forward(images)
                marks.append(time.perf_counter())
            synchronize(images.device)
            seconds = (time.perf_counter() - marks[0]) / iterations
            joules = joules_between(before, joules_so_far(images.device))
            forwards = [b - a for a, b in pairwise(marks)] if images.device.type == "cpu" else []
            return Block(seconds, forwards, out, joules, iterations)
    finally:
        if collecting:
            gc.enable()


def _time_on_cuda(forward: Forward, images: Tensor, iterations: int) -> Block:
    with torch.cuda.device(images.device):
        before = joules_so_far(images.device)
        # the clocks fall while the GPU waits for us between blocks
        forward(images)
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(iterations + 1)]
        marks[0].record()
        for mark in marks[1:]:
            out = forward(images)
            mark.record()
        marks[-1].synchronize()
        after = joules_so_far(images.device)
        forwards = [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]
        joules = joules_between(before, after)
        return Block(marks[0].elapsed_time(marks[-1]) / 1e3 / iterations, forwards, out, joules, iterations + 1)


def time_once(forward: Forward, images: Tensor) -> tuple[float, Any]:
    """Seconds of one forward, until the device is done with it, and its output."""
    synchronize(images.device)
    start = time.perf_counter()
    output = forward(images)
    synchronize(images.device)
    return time.perf_counter() - start, output


def percentile_ms(forwards: Sequence[float], percent: int) -> float | None:
    """A percentile of times in seconds, in milliseconds; None unless at least one forward may lie beyond it.

    The 99th needs 100 forwards: of 30 it would be the slowest, whatever that was slow by.
    """
    if len(forwards) * (100 - percent) < 100:
        return None
    return 1e3 * float(np.percentile(forwards, percent))


def warm_up(forward: Forward, images: Tensor, seconds: float) -> float:
    """Run until `seconds` have passed and the pace is steady, at most four times that; seconds per iteration.

    Steady: two successive medians (of 10 iterations on a GPU, 3 on a CPU) within 1 %. On a CPU, which has no clocks to
    wait for, at most twice `seconds`. At least two iterations.
    """
    window, most = (10, 4 * seconds) if images.device.type == "cuda" else (3, 2 * seconds)
    times: list[float] = []
    start = time.perf_counter()
    with torch.inference_mode():
        while True:
            before = time.perf_counter()
            forward(images)
            synchronize(images.device)
            now = time.perf_counter()
            times.append(now - before)
            long_enough = now - start >= seconds and len(times) >= 2
            if long_enough and (now - start >= most or _steady(times, window)):
                return median(times[-window:]) if len(times) > window else min(times)


def _steady(times: Sequence[float], window: int) -> bool:
    if len(times) < 2 * window:
        return False
    earlier, later = median(times[-2 * window : -window]), median(times[-window:])
    return abs(later / earlier - 1) <= STEADY


def host_share(forward: Forward, images: Tensor, repeats: int = 5) -> float | None:
    """Share of one forward's time that the CPU needs to launch it; near 1 the GPU waits. None on a CPU."""
    if images.device.type == "cpu":
        return None
    shares = []
    with torch.inference_mode():
        for _ in range(repeats):
            synchronize(images.device)
            start = time.perf_counter()
            forward(images)
            launched = time.perf_counter()
            synchronize(images.device)
            shares.append((launched - start) / (time.perf_counter() - start))
    return median(shares)


def synchronize(device: torch.device) -> None:
    """Wait for the device; a CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
