"""What a run says while it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from suite.contract.printable import printable

Item = TypeVar("Item")
PLAIN_INTERVAL = 10.0  # seconds between plain lines
TABLE_INTERVAL = 2.0  # seconds between two tables of what there is so far
Tables = Callable[[], RenderableType | None]


class BelowTables(Bar):
    """A bar below what there is so far, which is made anew every `TABLE_INTERVAL` seconds."""

    def __init__(self, tables: Sequence[Tables], *columns: ProgressColumn, console: Console) -> None:
        self._made, self._at = tables, 0.0
        self._shown: list[RenderableType] = []
        super().__init__(*columns, console=console)

    def get_renderables(self) -> Iterator[RenderableType]:
        if self._made and time.monotonic() - self._at > TABLE_INTERVAL:
            self._shown = [table for made in self._made if (table := made()) is not None]
            self._at = time.monotonic()
        yield from self._shown
        yield from super().get_renderables()


class Progress:
    """Reports to `console`; silent with quiet=True, except for failures.

    beat: is told of every step, too: (stage, done, of, what). draw: what shows a `Partial`.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet
        self.beat: Callable[[str, float, float, str], None] = lambda *_: None
        self.draw: Callable[[Any], RenderableType | None] = lambda of: None
        self.tables: Sequence[Tables] = ()

    def note(self, text: str) -> None:
        if not self.quiet:
            self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def failed(self, cell: str, reason: str) -> None:
        said = printable(f"failed: {cell}: {reason}")
        self.console.print(said, style="red", highlight=False, markup=False, soft_wrap=True)

    def steps(self, label: str, items: Sequence[Item], name: Callable[[Item], str] = lambda item: "") -> Iterator[Item]:
        """The items, one by one, counted."""
        with self._counter(label, len(items), unit="") as advance:
            for item in items:
                yield item
                advance(name(item), 1)

    @contextmanager
    def images(
        self, total: int, cells: int, where: Callable[[], str] = lambda: "", partials: Sequence[Any] = ()
    ) -> Iterator[Callable[[str, int], None]]:
        """A counter of forwards (images x cells), with images/s and time left. where: said beside, as it is then.

        partials: what there is so far, as `draw` shows it: above the bar, or once where there is none.
        """
        self.tables = [partial(self.draw, of) for of in partials]
        with self._counter(f"evaluating {cells} cells", total, unit="images", where=where) as advance:
            yield advance
        self.tables = ()

    @contextmanager
    def scoring(self, cells: int) -> Iterator[Callable[[str, int], None]]:
        """A counter of cells that are scored."""
        with self._counter(f"scoring {cells} cells", cells, unit="") as advance:
            yield advance

    @contextmanager
    def download(self, what: str, size: int) -> Iterator[Callable[[int], None]]:
        """A counter of bytes, in megabytes."""
        with self._counter(f"fetching {what} (MB)", round(size / 1e6), unit="") as advance:
            yield lambda count: advance("", count / 1e6)

    @contextmanager
    def updates(self, label: str, total: int) -> Iterator[Callable[[str, int], None]]:
        """A counter of training updates."""
        with self._counter(label, total, unit="") as advance:
            yield advance

    @contextmanager
    def timing(self, what: str, cells: int) -> Iterator[Callable[[int, int, str], None]]:
        """A counter of timed blocks; its callback takes (blocks done, blocks in all, what)."""
        with self._counter(f"timing {what}, {cells} variants", 0, unit="blocks", settable=True) as update:
            yield lambda done, blocks, what: update(what, done, blocks)

    @contextmanager
    def _counter(
        self, label: str, total: int, unit: str, settable: bool = False, where: Callable[[], str] = lambda: ""
    ) -> Iterator[Callable[..., None]]:
        if total == 0 and not settable:
            yield lambda *_: None
            return
        count = 0.0
        with self._shown(label, total, unit, settable, where) as show:

            def advance(what: str, done: float, of: float | None = None) -> None:
                nonlocal count
                count = done if settable else count + done
                self.beat(label, count, of or total, what)
                show(what, done, of)

            self.beat(label, 0, total, "")
            yield advance

    def _shown(
        self, label: str, total: int, unit: str, settable: bool, where: Callable[[], str]
    ) -> AbstractContextManager[Callable[..., None]]:
        if self.quiet:
            return nullcontext(lambda *_: None)
        show = self._bar if self.console.is_terminal else self._lines
        return show(label, total, unit, settable, where)

    @contextmanager
    def _bar(
        self, label: str, total: int, unit: str, settable: bool, where: Callable[[], str]
    ) -> Iterator[Callable[..., None]]:
        rate = TextColumn("{task.fields[rate]}")
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate)
        with BelowTables(
            self.tables,
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}", markup=False),
            console=self.console,
        ) as bar:
            task = bar.add_task(label, total=total or None, rate="", what="")
            start = time.monotonic()

            def advance(what: str, done: int, of: int | None = None) -> None:
                what = printable(what)
                counted = done if settable else bar.tasks[0].completed + done
                speed = f"{counted / max(time.monotonic() - start, 1e-9):.0f} {unit}/s" if unit == "images" else ""
                bar.update(
                    task, description=label + where(), completed=counted, total=of or total, rate=speed, what=what
                )

            yield advance

    @contextmanager
    def _lines(
        self, label: str, total: int, unit: str, settable: bool, where: Callable[[], str]
    ) -> Iterator[Callable[..., None]]:
        start = began = printed = time.monotonic()
        count = 0
        self.note(f"{label} ...")

        def advance(what: str, done: int, of: int | None = None) -> None:
            nonlocal began, printed, count
            count = done if settable else count + done
            now, whole = time.monotonic(), of or total
            if not count:  # still warming up, which says nothing of what follows
                began = now
            if now - printed >= PLAIN_INTERVAL and count:
                printed, spent = now, now - began
                left = spent * (whole - count) / count
                speed = f", {count / spent:.0f} {unit}/s" if unit == "images" else ""
                self.note(f"{label}{where()}: {count:.0f} of {whole}{speed}, about {left:.0f} s left")
                if waiting := [table for made in self.tables if (table := made()) is not None]:
                    self.tables = ()  # once: a log is no place to draw one again and again
                    self.console.print(*waiting)

        yield advance
        self.note(f"{label}: done in {time.monotonic() - start:.1f} s")
