"""An analysis as people and programs read it: one table, its numbers and a figure, written into a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.pareto.plots import METADATA, RC
from reports.text.markup import csv_text
from suite.store.files import write_bytes, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Sheet:
    """One analysis. name: of its files. about: what it was made of. records: its numbers, None where there is no data.

    headers, lines, notes: the same for people, with `names` columns of words first, and what must be known to read it.
    failed: what could not be measured.
    """

    name: str
    title: str
    about: dict[str, Any]
    records: list[dict[str, Any]]
    headers: tuple[str, ...]
    lines: list[list[str]]
    notes: tuple[str, ...]
    draw: Callable[[], Figure]
    failed: list[str] = field(default_factory=list)
    names: int = 1

    @property
    def grouped(self) -> bool:
        """Lines that begin alike stand together."""
        return len({line[0] for line in self.lines}) < len(self.lines)

    @property
    def markdown(self) -> str:
        rule = "|:---" * self.names + "|---:" * (len(self.headers) - self.names) + "|"
        rows = ["| " + " | ".join(cells) + " |" for cells in (self.headers, *self.lines)]
        return "\n".join([f"### {self.title}", "", rows[0], rule, *rows[1:], "", *self.notes, ""])


def write_sheet(sheet: Sheet, folder: Path) -> list[Path]:
    """Write <name>.json, .csv, .md and .png into `folder`, made if need be. Equal numbers give equal bytes."""
    write_json(folder / f"{sheet.name}.json", {**sheet.about, "failed": sheet.failed, "records": sheet.records})
    table = csv_text(pd.DataFrame(sheet.records))
    texts = {"csv": table.encode(), "md": sheet.markdown.encode(), "png": picture(sheet.draw)}
    for kind, content in texts.items():
        write_bytes(folder / f"{sheet.name}.{kind}", content)
    return [folder / f"{sheet.name}.{kind}" for kind in ("json", *texts)]


def picture(draw: Callable[[], Figure]) -> bytes:
    """The drawn figure as PNG."""
    from matplotlib import rc_context

    buffer = BytesIO()
    with rc_context(RC):
        draw().savefig(buffer, format="png", dpi=200, metadata=METADATA["png"])
    return buffer.getvalue()
