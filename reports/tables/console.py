"""Tables for a terminal of any width: columns give way in a stated order, and nothing that is shown is cut.

What does not fit even then stands row below row. All verbs print their tables through `console_table`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from suite.contract.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

LOG_WIDTH = 240
USUAL = 24  # characters of a name, such as 'mctf (trained)'
WIDEST = 40  # characters in one line of a name, or of a word that nothing else breaks


@dataclass(frozen=True)
class Field:
    """One column: its header and a cell for every row.

    names: with the others that name a row, it tells the row from all others. whole: its cells are not broken at spaces.
    """

    header: str
    cells: Sequence[str]
    numeric: bool = False
    names: bool = False
    whole: bool = False

    @property
    def natural(self) -> int:
        """Characters that the longest cell takes in one line; a header may be broken."""
        return max(_longest_word(self.header), *(min(len(cell), self._limit) for cell in (*self.cells, "")))

    @property
    def least(self) -> int:
        """Characters that it can do with; words are not broken, nor names of a usual length."""
        if self.whole:
            return self.natural
        word = min(WIDEST, max(map(_longest_word, (self.header, *self.cells))))
        return max(word, min(self.natural, USUAL)) if self.names else word

    @property
    def _limit(self) -> int:
        return WIDEST if self.names else 10**6


@dataclass(frozen=True)
class ConsoleTable:
    """A table as a terminal shows it (rich prints it) and as programs read it.

    records: a row each. fields: all columns, of which a narrow terminal may show fewer.
    """

    shown: Table
    title: str
    fields: Sequence[Field]
    notes: Sequence[str]
    numbers: Sequence[Mapping[str, Any]] | None

    def __rich__(self) -> Table:
        return self.shown

    @property
    def records(self) -> list[dict[str, Any]]:
        """Numbers where there are such, else what is shown of every row, by its header."""
        if self.numbers is not None:
            return [dict(row) for row in self.numbers]
        headers = [field.header for field in self.fields]
        return [dict(zip(headers, cells)) for cells in zip(*(field.cells for field in self.fields), strict=True)]


Step = tuple[str, str, Field | None]
"""What a narrow terminal goes without: its name, the header that it is about, and what stands there instead."""


def fields_of(
    headers: Sequence[str],
    lines: Sequence[Sequence[str]],
    names: int = 1,
    words: int | None = None,
    whole: bool = False,
) -> list[Field]:
    """Columns of lines: the first `names` name a row, those behind the first `words` (default: all) are numbers.

    whole: the cells of the others are not broken at spaces.
    """
    columns = list(zip(*lines, strict=True)) or [()] * len(headers)
    return [
        Field(header, cells, numeric=words is not None and i >= words, names=i < names, whole=whole and i >= names)
        for i, (header, cells) in enumerate(zip(headers, columns, strict=True))
    ]


def terminal_width() -> int:
    """Characters in a line: as COLUMNS says, or this terminal; a log has no width that rows had to be broken for."""
    from rich.console import Console

    watched = any(stream and stream.isatty() for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__))
    return Console(width=None if watched or os.environ.get("COLUMNS") else LOG_WIDTH).width


def spare(headers: Sequence[str]) -> list[Step]:
    """Columns that go altogether, in this order."""
    return [(header, header, None) for header in headers]


def fit(fields: Sequence[Field], width: int, steps: Sequence[Step] = ()) -> tuple[list[Field], list[str]]:
    """The fields that `width` characters have room for, and what was left out for it.

    No step is taken that gains no room, or after which two rows have one name.
    """
    shown = list(fields)
    left_out: list[str] = []
    for said, header, instead in steps:
        if _room(shown) <= width:
            break
        replaced = [instead if field.header == header else field for field in shown]
        shorter = [field for field in replaced if field is not None]
        if _room(shorter) < _room(shown) and _distinct(shorter) >= _distinct(shown):
            shown, left_out = shorter, [*left_out, said]
    return shown, left_out


def console_table(
    fields: Sequence[Field],
    width: int,
    steps: Sequence[Step] = (),
    *,
    title: str = "",
    notes: Sequence[str] = (),
    elsewhere: str = "",
    sections: Mapping[int, str] | None = None,
    styles: Mapping[int, str] | None = None,
    paint: Callable[[str], str] = lambda cell: "",
    numbers: Sequence[Mapping[str, Any]] | None = None,
) -> ConsoleTable:
    """A table no wider than `width`, or its rows one below the other.

    notes: stand below, with what there is no room for and where that is (`elsewhere`). sections: a line before the row
    of this number, and its heading, "" for none; if any has one, so has the first row. styles: of rows; paint: of a
    cell.
    """
    from rich.text import Text

    shown, left_out = fit(fields, width, steps)
    make = _grid if _room(shown) <= width else _records
    table = make(shown, width, sections or {}, styles or {}, paint)
    said = [*notes, *([f"No room for: {', '.join(left_out)}{elsewhere}."] if left_out else [])]
    table.title = Text(printable(title)) if title else None
    table.caption, table.caption_justify = (Text(printable("\n".join(said))) if said else None), "left"
    return ConsoleTable(table, title, fields, notes, numbers)


def _grid(
    fields: Sequence[Field],
    width: int,
    sections: Mapping[int, str],
    styles: Mapping[int, str],
    paint: Callable[[str], str],
) -> Table:
    from rich.table import Table
    from rich.text import Text

    widths = _widths(fields, width)
    starts = [number for number, heading in sections.items() if heading]
    if not starts:
        table = _columns(fields, widths)
        _add_rows(table, fields, range(_rows(fields)), sections, styles, paint)
        return table
    table = Table(box=None, show_header=False, padding=0)
    table.add_row(_columns(fields, widths))
    for start, stop in pairwise([*starts, _rows(fields)]):  # a row of its own would have to fit into one column
        part = _columns(fields, widths, header=False)
        _add_rows(part, fields, range(start, stop), sections, styles, paint)
        table.add_row(Text(printable(sections[start]), style="bold"))
        table.add_row(part)
    return table


def _columns(fields: Sequence[Field], widths: Sequence[int], header: bool = True) -> Table:
    """A table without rows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_header=header)
    for field, characters in zip(fields, widths, strict=True):
        side: Literal["left", "right"] = "right" if field.numeric else "left"
        table.add_column(Text(printable(field.header)), justify=side, overflow="fold", width=characters)
    return table


def _add_rows(
    table: Table,
    fields: Sequence[Field],
    rows: range,
    sections: Mapping[int, str],
    styles: Mapping[int, str],
    paint: Callable[[str], str],
) -> None:
    from rich.text import Text

    for number in rows:
        if number in sections and number != rows.start:
            table.add_section()
        cells = (field.cells[number] for field in fields)
        table.add_row(*(Text(printable(cell), style=paint(cell)) for cell in cells), style=styles.get(number))


def _rows(fields: Sequence[Field]) -> int:
    return len(fields[0].cells) if fields else 0


def _records(
    fields: Sequence[Field],
    width: int,
    sections: Mapping[int, str],
    styles: Mapping[int, str],
    paint: Callable[[str], str],
) -> Table:
    """Each row's name in a line of its own, and what is said of it below; an empty name is that of the row before."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=0, width=width)
    table.add_column(overflow="fold")
    names, rest = [f for f in fields if f.names], [f for f in fields if not f.names]
    before = [""] * len(names)
    for number in range(_rows(fields)):
        if sections.get(number):
            table.add_row(Text(printable(sections[number]), style="bold underline"))
        before = [field.cells[number] or held for field, held in zip(names, before, strict=True)]
        name = Text(printable("  ".join(filter(None, before))), style="bold")
        said = ((field.header, field.cells[number]) for field in rest)
        lines = [Text.assemble(f"  {header}: ", (printable(cell), paint(cell))) for header, cell in said if cell]
        table.add_row(Text("\n").join([name, *lines]), style=styles.get(number))
    return table


def _widths(fields: Sequence[Field], width: int) -> list[int]:
    """Characters of each column: what it would take, the widest narrowed until all have room."""
    widths, least = [field.natural for field in fields], [field.least for field in fields]
    while sum(widths) + len(widths) + 1 > width:
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: widths[i])
        widths[widest] -= 1
    airy = sum(widths) + 2 * len(widths) + 1 <= width
    return [characters + airy for characters in widths]


def _room(fields: Sequence[Field]) -> int:
    """Characters that a line needs at least: the columns, a space between two of them, and one at each end."""
    return sum(field.least for field in fields) + len(fields) + 1


def _distinct(fields: Sequence[Field]) -> int:
    """How many rows can be told apart by their names."""
    return len(set(zip(*(field.cells for field in fields if field.names))))


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)
