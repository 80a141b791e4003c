"""Standard streams that cannot be written: full, closed, read by nobody, or of a few letters."""

from __future__ import annotations

import multiprocessing
import os
import sys
from random import Random

from tests.faults.injected.command import Acts
from tests.faults.injected.fault import Draw, Fault, draw_stage
from tests.faults.injected.project import Project

NAMES = ("input", "output", "errors")


def full(random: Random, project: Project) -> Fault:
    number = random.choice([1, 2])

    def inside() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)

    return Fault(NAMES[number], draw_stage(random), Acts(inside=inside))


def unread(random: Random, project: Project) -> Fault:
    """As `| head -1` leaves it."""
    number = random.choice([1, 2])

    def inside() -> None:
        reading, writing = os.pipe()
        os.dup2(writing, number)
        os.close(writing)
        os.close(reading)

    return Fault(NAMES[number], draw_stage(random), Acts(inside=inside))


def closed(random: Random, project: Project) -> Fault:
    number = random.choice([0, 1, 2])

    def inside() -> None:
        os.close(number)
        if number == 1:  # as Python begins without it
            sys.stdout = sys.__stdout__ = None
        if number == 2:
            sys.stderr = sys.__stderr__ = None

    return Fault(NAMES[number], draw_stage(random), Acts(inside=inside))


def ascii_only(random: Random, project: Project) -> Fault:
    def inside() -> None:
        if multiprocessing.parent_process() is not None:  # else it is about to be a new interpreter
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(encoding="ascii", errors="strict")

    acts = Acts(inside=inside, environment={"PYTHONIOENCODING": "ascii:strict"})
    return Fault("output, errors", draw_stage(random), acts)


STREAMS: dict[str, Draw] = {"full": full, "unread": unread, "closed": closed, "ASCII": ascii_only}
