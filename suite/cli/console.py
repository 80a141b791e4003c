"""Where the verbs print: results on standard output, complaints on standard error, tables as wide as there is room.

With --json everything that a verb has to say on standard output is one JSON document, printed when it ends.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from reports.tables.console import ConsoleTable, Field, Step, console_table, fields_of, terminal_width
from suite.contract.printable import printable

out_console, err_console = Console(), Console(stderr=True)


@dataclass
class Document:
    """What a verb said, for programs: its tables, a record a row, and its lines."""

    tables: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def add(self, table: ConsoleTable) -> None:
        self.tables.append({"title": table.title, "rows": table.records, "notes": [*table.notes]})

    @property
    def text(self) -> str:
        return json.dumps(as_json(vars(self)), ensure_ascii=False, indent=1, allow_nan=False)


def as_json(value: Any) -> Any:
    """The same of what JSON knows: numpy's numbers as Python's, what is no number as null, the rest as text."""
    if isinstance(value, Mapping):
        return {str(name): as_json(of) for name, of in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(of) for of in value]
    if hasattr(value, "tolist"):
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


class Kept:
    """document: where everything is kept until the verb ends; None: it is printed as it comes."""

    document: Document | None = None


PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def say(text: str, **style: Any) -> None:
    if Kept.document is not None:
        Kept.document.said.append(text)
        return
    out_console.print(printable(text), **PLAIN, **style)


def warn(text: str, **style: Any) -> None:
    err_console.print(printable(text), **PLAIN, **style)


def print_table(fields: Sequence[Field], steps: Sequence[Step] = (), **further: Any) -> None:
    """See `reports.tables.console.console_table`."""
    print_fitted(console_table(fields, terminal_width(), steps, **further))


def print_lines(headers: Sequence[str], rows: Sequence[tuple[str, ...]], line: Callable[..., str]) -> None:
    """A list, one line each, which no terminal has to make room for; for programs a table."""
    if Kept.document is not None:
        print_table(fields_of(headers, rows))
        return
    for row in rows:
        out_console.print(line(*row), **PLAIN)


def print_fitted(*tables: ConsoleTable) -> None:
    """Tables that were made for the terminal's width."""
    if Kept.document is not None:
        for table in tables:
            Kept.document.add(table)
        return
    Console(width=terminal_width()).print(*tables, sep="")
