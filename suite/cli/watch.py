"""The verb `watch`: a run that another command works on, seen from another terminal, or another machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.cli.console import out_console, print_fitted, say
from suite.cli.ending import ExitCode
from suite.errors import RequestError
from suite.store.pulse import STALE, Beat, read_beat

if TYPE_CHECKING:
    import pandas as pd

    from reports.tables.console import ConsoleTable

RESTS = 5  # times as long as a look took, so that watching takes no more than a sixth of a core


@dataclass(frozen=True)
class Look:
    """What a folder holds, and what is being done. asked: cells of all its runs; frame: None before there are any."""

    frame: pd.DataFrame | None
    asked: int
    beat: Beat | None

    @property
    def counts(self) -> dict[str, int]:
        """How many cells are scored, how many of these have a time, how many failed, and how many are left."""
        if self.frame is None:
            return {"scored": 0, "timed": 0, "failed": 0, "left": self.asked}
        scored = self.frame.status == "done"
        failed = int((self.frame.status == "failed").sum())
        timed = int((scored & self.frame.im_s.notna()).sum())
        return {
            "scored": int(scored.sum()),
            "timed": timed,
            "failed": failed,
            "left": self.asked - int(scored.sum()) - failed,
        }

    @property
    def working(self) -> bool:
        """Whether a command has said so lately."""
        return self.beat is not None and self.beat.silent < STALE

    def lines(self) -> Iterator[str]:
        """In words: how far it is, and what it is at."""
        said = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        yield f"{self.asked} cells: {said}"
        if self.beat is None:
            yield "no command works on it"
        elif not self.working:
            yield f"the last that was heard of its command, {self.beat.silent:.0f} s ago: {self.beat.stage}"
        else:
            share = f": {self.beat.done:.0f} of {self.beat.of:.0f}" if self.beat.of else ""
            left = f", about {self.beat.left:.0f} s left" if self.beat.left is not None else ""
            yield f"{self.beat.stage}{share}{left} {self.beat.what}".rstrip()


def watch_command(
    out: Annotated[Path, typer.Argument(help="Folder of a run, or of several.")],
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
) -> None:
    """Follow a run from another terminal, or another machine that sees its folder: what is done, failed and left.

    Ends when no command works on the folder any more. Exit code 1: cells failed, or are left.
    """
    look = take_look(out)
    if out_console.is_terminal and not once:
        look = follow_live(out, look, every)
    else:
        look = follow_in_lines(out, look, every, once)
    if look.frame is not None:
        print_fitted(*tables_of(look.frame))
    of = look.counts
    raise typer.Exit(ExitCode.FAILED if of["failed"] or of["left"] else ExitCode.DONE)


def take_look(out: Path) -> Look:
    """RequestError for what is no run's folder, and none that a command works on."""
    from reports.frame import load_frame
    from suite.store.folder import RunFolder
    from suite.store.study import runs_in

    beat = read_beat(out)  # before the cells: what is taken away in between is in them
    try:
        asked = sum(len(RunFolder(run).read_run()["cells"]) for run in runs_in(out))
        frame = load_frame(out)
    except RequestError:
        if beat is None:
            raise
        return Look(None, 0, beat)
    return Look(frame if len(frame) else None, asked, beat)


def follow_in_lines(out: Path, look: Look, every: float, once: bool) -> Look:
    """A line whenever a stage or the number of cells changes."""
    said = None
    while True:
        lines = list(look.lines())
        if (now := (look.counts, look.beat and look.beat.stage)) != said:
            said = now
            for line in lines:
                say(line)
            sys.stdout.flush()
        if once or not look.working:
            return look
        look = next_look(out, every)


def follow_live(out: Path, look: Look, every: float) -> Look:
    """The table and the lines below it, drawn anew."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def drawn(look: Look) -> Group:
        lines = [Text(line) for line in look.lines()]
        return Group(*([] if look.frame is None else tables_of(look.frame)), *lines)

    with Live(drawn(look), console=out_console, auto_refresh=False, transient=True) as live:
        while look.working:
            look = next_look(out, every)
            live.update(drawn(look), refresh=True)
    return look


def next_look(out: Path, every: float) -> Look:
    time.sleep(every)
    began = time.monotonic()
    look = take_look(out)
    time.sleep(RESTS * (time.monotonic() - began) if look.working else 0)
    return look


def tables_of(frame: pd.DataFrame) -> list[ConsoleTable]:
    """One a task."""
    from reports.groups import by_task
    from reports.tables.results import console_table

    return [console_table(part) for part in by_task(frame)]
