"""The table of a run: CSV for programs, Markdown, LaTeX and terminal for people, from one list of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from reports.groups import Group, groups, labels_of
from reports.marks.floor_rows import hosted
from reports.tables import console
from reports.tables.columns import Column, columns_for, shorter, terminal_columns
from reports.tables.console import ConsoleTable, Field, terminal_width
from reports.tables.records import records_of
from reports.text.headings import circumstances, notes, once_each, titles
from reports.text.markup import TEX_HEAD, csv_text, markdown_row, markdown_rule, tex_escaped
from suite.rates.rate import is_target
from suite.store.files import write_text

BEST = "★"
BEST_SAID = f"{BEST} the best score of those that were asked for the same FLOPs; within their intervals others may be."
STYLES = {"failed": "red", "running": "yellow"}


def write_tables(
    frame: pd.DataFrame, folder: str | Path, absent: Mapping[str, str] = MappingProxyType({})
) -> list[Path]:
    """Write table.csv, table.md and table.tex into `folder` (made if need be); equal frames give equal bytes.

    table.csv: the cell's key and every column of the frame in full precision, n/a where there is no data. absent: runs
    of a study that could not be run or read, and why; that stands at the end of table.md.
    """
    folder = Path(folder)
    parts = hosted(list(groups(frame)))
    lost = [f"- Without {name}: {' '.join(why.split())}\n" for name, why in absent.items()]
    texts = {
        "table.csv": csv_text(frame, index="key"),
        "table.md": "\n".join([*map(_markdown, parts, titles(parts)), *lost]) or "No cells yet.\n",
        "table.tex": "\n".join([TEX_HEAD, *map(_tex, parts, titles(parts), range(len(parts)))]) + "\n",
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def console_table(frame: pd.DataFrame, width: int | None = None) -> ConsoleTable:
    """The table of one task for a terminal of `width` characters (default: this one's); what does not fit is named
    below.

    Reasons of failures stand below, too. Several models stand below each other in one table.
    """
    parts = hosted(list(groups(frame)))
    rows = [row for part in parts for row in part.frame.itertuples()]
    shown = pd.concat([part.frame for part in parts]) if parts else frame
    shown.attrs["runs"] = frame.attrs["runs"]
    steps = [
        (name, header, None if instead is None else _field(instead, rows)) for name, header, instead in shorter(shown)
    ]
    said = once_each(zip(labels_of(parts), [[circumstances(part), *notes(part)] for part in parts], strict=True))
    best = {key for part in parts for key in best_of(part)}
    said += [BEST_SAID] if best else []
    columns = [_marked(column, best, parts) for column in terminal_columns(shown)]
    styles = {i: colour for i, row in enumerate(rows) if (colour := STYLES.get(row.status))}
    return console.console_table(
        [_field(column, rows) for column in columns], width or terminal_width(), steps,
        title=titles(parts)[0] if len(parts) == 1 else "", notes=said, elsewhere="; see table.md",
        sections=_sections(parts), styles=styles, numbers=records_of(frame.reset_index(names="key")),
    )  # fmt: skip


def best_of(group: Group) -> set[str]:
    """Keys of the cells with the best score of all methods that were asked for one change of FLOPs."""
    metric, found = group.shown.metrics[0], set[str]()
    done = group.frame[(group.frame.status == "done") & (group.frame.weights_kind != "random")]
    asked = done[done.rate.fillna("").map(is_target).astype(bool)]
    for _, rows in asked.groupby("rate"):
        scores = (metric.sign * rows[metric.name]).dropna()
        if rows.loc[scores.index].reducer.nunique() > 1:
            found |= {*scores.index[scores == scores.max()]}
    return found


def _marked(column: Column, best: set[str], parts: list[Group]) -> Column:
    """With the mark of the best behind their scores."""
    if not best or column.header != parts[0].shown.metrics[0].label:
        return column
    return replace(column, show=lambda row: column.show(row) + (f" {BEST}" if row.Index in best else ""))


def _field(column: Column, rows: list[Any]) -> Field:
    cells = [_without_reason(row, column.show(row)) for row in rows]
    return Field(column.header, cells, column.numeric, column.names, whole=True)


def _without_reason(row: Any, cell: str) -> str:
    """'failed', and not why, which stands below the table."""
    return row.status if cell.startswith(f"{row.status}: ") else cell


def _sections(parts: list[Group]) -> dict[int, str]:
    """A line between two reducers, and before each (task, model, ...) what it is, if there are several."""
    found, number = {}, 0
    for part, heading in zip(parts, titles(parts), strict=True):
        for block in _blocks(part):
            found[number] = ""
            number += len(block)
        if len(parts) > 1:
            found[number - len(part.frame)] = heading
    return found


def _blocks(group: Group) -> list[list[Any]]:
    """The group's rows, those of one reducer together."""
    return [list(rows) for _, rows in groupby(group.frame.itertuples(), key=lambda row: row.reducer)]


def _markdown(group: Group, heading: str) -> str:
    columns = columns_for(group.frame)
    lines = [f"### {heading}", "", circumstances(group), "", markdown_row([column.header for column in columns])]
    lines.append(markdown_rule([column.numeric for column in columns]))
    lines += [markdown_row([column.show(row) for column in columns]) for row in group.frame.itertuples()]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(group)), ""])


def _tex(group: Group, heading: str, number: int) -> str:
    columns = columns_for(group.frame, traced=False)  # a page is no wider
    blocks = [
        "".join(" & ".join(tex_escaped(column.show(row)) for column in columns) + " \\\\\n" for row in block)
        for block in _blocks(group)
    ]
    caption = f"{heading}. Speed: {circumstances(group)}."
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{tex_escaped(caption)}}}",
            rf"\label{{tab:reducers-{number + 1}}}",
            rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in columns)}}}",
            r"\toprule",
            " & ".join(tex_escaped(column.header) for column in columns) + r" \\",
            r"\midrule",
            "\\midrule\n".join(blocks) + r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip {{\scriptsize {tex_escaped(note)}\par}}" for note in notes(group)),
            r"\end{table*}",
        ]
    )
