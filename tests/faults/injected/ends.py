"""Signals that end, stop and disturb the command."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from random import Random

from tests.faults.injected.command import Acts
from tests.faults.injected.fault import Draw, Fault, draw_moment, draw_stage
from tests.faults.injected.project import Project


def send(process: int, number: int, group: bool = False) -> None:
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process, number)


def by_signal(number: signal.Signals, group: bool = False, killed: bool = False, times: int = 1) -> Draw:
    """group: to all processes of the command, as a terminal does."""

    def act(process: int) -> None:
        for _ in range(times):
            send(process, number, group)

    def draw(random: Random, project: Project) -> Fault:
        acts = Acts(at=draw_moment(random), act=act)
        return Fault("group" if group else "process", draw_stage(random), acts, killed=killed)

    return draw


def stopped(random: Random, project: Project) -> Fault:
    """A laptop that is closed, a job that is suspended: goes on after a while."""
    pause = random.uniform(0.1, 2.0)

    def act(process: int) -> None:
        send(process, signal.SIGSTOP, group=True)
        threading.Thread(target=_go_on, args=(process, pause), daemon=True).start()

    return Fault("group", draw_stage(random), Acts(at=draw_moment(random), act=act))


def _go_on(process: int, pause: float) -> None:
    time.sleep(pause)
    send(process, signal.SIGCONT, group=True)


ENDS: dict[str, Draw] = {
    "SIGINT": by_signal(signal.SIGINT),
    "Ctrl-C": by_signal(signal.SIGINT, group=True),
    "Ctrl-C, twice": by_signal(signal.SIGINT, group=True, times=2),
    "SIGTERM": by_signal(signal.SIGTERM),
    "SIGHUP": by_signal(signal.SIGHUP, group=True),
    "SIGKILL": by_signal(signal.SIGKILL, group=True, killed=True),
    "suspended": stopped,
}
