"""The command under a fault: in a forked process, which has everything imported, or as users start it."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

ROOT = Path(__file__).parents[3]
FORK = multiprocessing.get_context("fork")
SILENCE = 30.0  # seconds without a sign of life: a hang; on a machine at work, where all takes longer, more
LONGEST = 150.0  # seconds in all


@dataclass(frozen=True)
class Ended:
    """How the command ended. code: negative for the signal that killed it. hung: it was killed for its silence."""

    code: int
    out: str
    err: str
    seconds: float
    hung: bool = False

    @property
    def said(self) -> str:
        return self.out + self.err


@dataclass
class Acts:
    """What happens to a command. inside: in its process, before it begins. at: when `act` is called with its process
    number, as a share of the time that the command takes undisturbed. environment: of a command that is started as
    users do."""

    inside: Callable[[], None] = lambda: None
    at: float | None = None
    act: Callable[[int], None] = lambda process: None
    environment: Mapping[str, str] = field(default_factory=dict)


def run_forked(arguments: list[str], acts: Acts, usual: float = 1.0) -> Ended:
    """In a child of this process, without plots, which take longer than all else, and change no number.

    usual: seconds that it takes undisturbed.
    """
    pipes = os.pipe(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = FORK.Process(target=_child, args=(arguments, acts, pipes))
    process.start()
    for _, writing in pipes:
        os.close(writing)
    assert process.pid is not None
    found, hung, seconds = _watch(
        process.pid, [reading for reading, _ in pipes], acts, usual, lambda: not process.is_alive()
    )
    process.join()
    assert process.exitcode is not None
    return Ended(process.exitcode, *found, seconds, hung)


def run_started(arguments: list[str], acts: Acts, usual: float = 30.0) -> Ended:
    """By a new interpreter, from its first import on."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **acts.environment}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run_bench.py"), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, preexec_fn=lambda: _begin(acts),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = [os.dup(stream.fileno()) for stream in (process.stdout, process.stderr)]
    found, hung, seconds = _watch(process.pid, pipes, acts, usual, lambda: process.poll() is not None)
    code = process.wait()
    process.stdout.close()
    process.stderr.close()
    return Ended(code, *found, seconds, hung)


def _begin(acts: Acts) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    acts.inside()


def _child(arguments: list[str], acts: Acts, pipes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    from suite.cli.program import main

    for number, (reading, writing) in enumerate(pipes, start=1):
        os.close(reading)
        os.dup2(writing, number)
        os.close(writing)
    kept = sys.stdout, sys.__stdout__, sys.stderr, sys.__stderr__  # which would close the files with them
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (as Python begins)
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.__stdin__ = sys.stdin  # the other one multiprocessing has closed
    torch.set_num_threads(1)
    _begin(acts)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["run_bench.py", *arguments]
    main()
    del kept


def _watch(
    process: int, pipes: list[int], acts: Acts, usual: float, over: Callable[[], bool]
) -> tuple[list[str], bool, float]:
    """What comes out of both pipes, and whether nothing did for too long."""
    start = heard = time.monotonic()
    found: dict[int, bytes] = dict.fromkeys(pipes, b"")
    left, hung = set(pipes), False
    waiting = None if acts.at is None else acts.at * usual
    while left or not over():
        now = time.monotonic()
        if waiting is not None and now - start >= waiting:
            waiting = None
            acts.act(process)
        if now - heard > max(SILENCE, 3 * usual) or now - start > LONGEST:
            hung = True
            _kill(process)
            break
        soon = min(0.05, max(0.0, waiting - (now - start))) if waiting is not None else 0.05
        ready = select.select(list(left), [], [], soon)[0] if left else time.sleep(soon) or []
        for pipe in ready:
            piece = os.read(pipe, 1 << 16)
            heard = time.monotonic()
            found[pipe] += piece
            if not piece:
                left.discard(pipe)
        if over() and not ready:  # a process of its own may hold the pipes
            break
    for pipe in pipes:
        os.close(pipe)
    return [text.decode("utf-8", "replace") for text in found.values()], hung, time.monotonic() - start


def _kill(process: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
