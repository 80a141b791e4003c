"""A fault: what is done to the machine, the data or the command, and how it is taken away again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.faults.injected.command import Acts, Ended
from tests.faults.injected.project import STAGES, Project


def nothing() -> None:
    """Where there is nothing to do."""


@dataclass
class Fault:
    """place: where it strikes. stage: of `STAGES`. prepare: done before the command, in a project that is as it should
    be. mend: takes the fault away, before the command is given again. killed: it ends the command by a signal. patched:
    something of Python stands for what nothing real can do here. others: how further commands ended. asks_else: what is
    asked may be something else, which is no error. clears: it may take the report away when that is written, which the
    command cannot know."""

    place: str
    stage: str
    acts: Acts = field(default_factory=Acts)
    prepare: Callable[[], None] = nothing
    mend: Callable[[], None] = nothing
    killed: bool = False
    patched: bool = False
    others: list[Ended] = field(default_factory=list)
    asks_else: bool = False
    clears: bool = False


Draw = Callable[[Random, Project], Fault]


def draw_stage(random: Random) -> str:
    return random.choices(STAGES, (1, 2, 2))[0]  # from nothing it takes longest


def draw_moment(random: Random) -> float:
    """Any time of the command, and a little after: a share of what it takes undisturbed."""
    return random.uniform(0.0, 1.05)
