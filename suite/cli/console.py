"""Where the verbs print: results on standard output, complaints on standard error, tables as wide as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from reports.tables.console import Field, Step, console_table, terminal_width
from suite.contract.printable import printable

out_console, err_console = Console(), Console(stderr=True)

PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def say(text: str, **style: Any) -> None:
    out_console.print(printable(text), **PLAIN, **style)


def warn(text: str, **style: Any) -> None:
    err_console.print(printable(text), **PLAIN, **style)


def print_table(fields: Sequence[Field], steps: Sequence[Step] = (), **further: Any) -> None:
    """See `reports.tables.console.console_table`."""
    print_fitted(console_table(fields, terminal_width(), steps, **further))


def print_fitted(*tables: Any) -> None:
    """Tables that were made for the terminal's width."""
    Console(width=terminal_width()).print(*tables, sep="")
