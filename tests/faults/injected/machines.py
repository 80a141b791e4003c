"""Networks, clocks, worker processes and other commands that get in the way."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.faults.injected.command import Acts, Ended, run_forked
from tests.faults.injected.ends import send
from tests.faults.injected.fault import Draw, Fault, draw_moment, draw_stage
from tests.faults.injected.project import BEGUN, Project, write_request

CLONE_NEWNET = 0x40000000
YEAR = 365 * 86400.0


def no_network(random: Random, project: Project) -> Fault:
    """Nothing that is needed is elsewhere."""

    def inside() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0

    return Fault("all of it", draw_stage(random), Acts(inside=inside))


def clock(random: Random, project: Project) -> Fault:
    """The time of day jumps, back or on; the files that are there have times of a day that was or will be."""
    shift, real = random.choice([-YEAR, -3600.0, 3600.0, YEAR]), time.time
    at = real() + draw_moment(random) * project.seconds["begun"]

    def inside() -> None:
        time.time = lambda: real() + (shift if real() > at else 0.0)

    def prepare() -> None:
        for path in project.out.rglob("*") if project.out.is_dir() else ():
            os.utime(path, (real() + shift, real() + shift))

    return Fault("time of day", draw_stage(random), Acts(inside=inside), prepare, patched=True)


def children(process: int) -> list[int]:
    """Of a process, those that it has forked and not finished with."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def worker(number: signal.Signals, pause: float = 0.0) -> Draw:
    """One of two processes that read images; with `pause` it goes on after so many seconds."""

    def draw(random: Random, project: Project) -> Fault:
        last = random.random()

        def act(process: int) -> None:
            found = children(process)
            if not found:
                return
            chosen = found[int(last * len(found))]
            send(chosen, number)
            if pause:
                threading.Timer(pause, send, (chosen, signal.SIGCONT)).start()

        acts = Acts(at=random.uniform(0.3, 0.9), act=act)
        with_workers = {**project.spec, "workers": 2}
        return Fault("reads images", random.choice(["fresh", "begun"]), acts, lambda: _ask(project, with_workers))

    return draw


def _ask(project: Project, spec: dict[str, object]) -> None:
    write_request(project.request, spec)


def another_command(random: Random, project: Project) -> Fault:
    """A second command in the same folder, for the same or for a part, which may be killed."""
    part, killed = random.random() < 0.5, random.random() < 0.3
    begins, ends = random.uniform(0, 0.6), random.uniform(0.1, 1.0)
    other = project.folder / "other.yaml"
    spec = {**project.spec, "reducers": BEGUN, "reducer_weights": {}} if part else project.spec
    ended: list[Ended] = []

    def kill(process: int) -> None:
        send(process, signal.SIGKILL, group=True)

    def run() -> None:
        acts = Acts(at=ends, act=kill) if killed else Acts()
        ended.append(run_forked(["run", str(other)], acts, project.seconds["begun"]))

    thread = threading.Thread(target=run)
    acts = Acts(at=begins, act=lambda process: thread.start())

    def mend() -> None:
        if thread.ident is not None:
            thread.join()

    place = ("a part" if part else "the same") + (", killed" if killed else "")
    return Fault(place, draw_stage(random), acts, lambda: write_request(other, spec), mend, others=ended)


MACHINES: dict[str, Draw] = {
    "network cut": no_network,
    "clock moved": clock,
    "worker killed": worker(signal.SIGKILL),
    "worker ended": worker(signal.SIGTERM),
    "worker stopped": worker(signal.SIGSTOP, pause=2.0),
    "another command": another_command,
}
