"""The table of a run: CSV for programs, Markdown, LaTeX and terminal for people, from one list of columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.frame import AGREEMENT, INTERVAL, Group, groups
from reports.headings import DISPUTED, REMARK, UNCOUNTED, circumstances, notes, title
from reports.markup import TEX_HEAD, markdown_row, markdown_rule, tex_escaped
from reports.text import (
    NO_DATA,
    gflops,
    is_untrained,
    known,
    percent,
    rate_label,
    ratio,
    reducer_label,
    score,
    shorten,
    speed,
    spread,
    training_mark,
    whole,
)
from suite.metric import Metric, Shown

if TYPE_CHECKING:
    from rich.table import Table

REASON_WIDTH, LABEL_WIDTH = 60, 40


@dataclass(frozen=True)
class Column:
    """One column for people: its header, and what it shows of a row (a namedtuple of the frame's columns)."""

    header: str
    show: Callable[[Any], str]
    numeric: bool = True


def _of_metric(row: Any, metric: Metric, interval: bool) -> str:
    value, low, high = (getattr(row, metric.name + end) for end in INTERVAL)
    return score(value, low, high, interval, metric.scale, metric.decimals, metric.largest)


def _headline(row: Any, metric: Metric) -> str:
    """What the row's cell came to; with random weights, the agreement."""
    if row.status == "failed":
        return shorten(f"failed: {row.reason}", REASON_WIDTH)
    if row.status == "running":
        return f"running: {row.samples} of {row.expected}"
    return _of_metric(row, AGREEMENT if row.weights_kind == "random" else metric, interval=True)


def _gflops(row: Any) -> str:
    disputed = DISPUTED if known(row.disputed) and row.disputed else ""
    uncounted = UNCOUNTED if known(row.uncounted) and row.uncounted else ""
    return gflops(row.gmacs) + disputed + uncounted


def _reducer(row: Any, short: bool = False) -> str:
    return shorten(reducer_label(row.reducer, row.options, training_mark(row.training, short)), LABEL_WIDTH)


def _starred_reducer(row: Any) -> str:
    return shorten(reducer_label(row.reducer, row.options), 24) + ("*" if is_untrained(row.training) else "")


def _gflops_spread(row: Any) -> str:
    return spread(_gflops(row), gflops(row.gmacs_p5), gflops(row.gmacs_p95))


def _speed(row: Any) -> str:
    return speed(row.im_s, row.im_s_low, row.im_s_high) + (REMARK if row.speed_note else "")


def _rate(row: Any) -> str:
    """The rate as it was run, or as asked where nothing came of it."""
    return next((rate for rate in (row.resolved_rate, row.rate) if known(rate) and rate), "–")


REDUCER = Column("Reducer", _reducer, numeric=False)
RATE = Column("Rate", lambda row: shorten(rate_label(row.rate, row.resolved_rate), LABEL_WIDTH), numeric=False)
IMAGES = Column("Images", lambda row: f"{row.samples} of {row.expected}")
GFLOPS, IM_S = Column("GFLOPs", _gflops_spread), Column("im/s", _speed)
FLOPS = (
    Column("FLOPs (%)", lambda row: percent(row.reduction, signed=True)),
    Column("Overhead (%)", lambda row: percent(row.overhead_gmacs / row.gmacs, 2)),
)
LEFT = (
    Column("Tokens left", lambda row: spread(whole(row.tokens_left), whole(row.tokens_p5), whole(row.tokens_p95))),
    Column("Memory (MiB)", lambda row: whole(row.peak_memory_mib)),
)
# What stands in a narrow terminal in place of longer columns.
SHORTER: tuple[tuple[str, Column | None], ...] = (
    ("what untrained ones lack", Column("Reducer", lambda row: _reducer(row, short=True), numeric=False)),
    ("rate as asked", Column("Rate", lambda row: shorten(_rate(row), 24), numeric=False)),
    ("the word untrained (*)", Column("Reducer", _starred_reducer, numeric=False)),
)


def columns_for(frame: pd.DataFrame) -> list[Column]:
    """The columns that people see; 'Images' is one of them only where some are missing."""
    shown, random = Shown.from_dict(frame.attrs["shown"]), set(frame.weights_kind == "random")
    first, *others = (metric for metric in shown.metrics if not metric.hidden)
    headers = {(False,): first.label, (True,): AGREEMENT.label}
    header = headers.get(tuple(random), f"{first.label} or {AGREEMENT.label.lower()}")
    images = [IMAGES] if frame.missing.any() else []
    # with random weights, the other scores mean nothing either
    scores = [] if random == {True} else [_metric_column(metric) for metric in others]
    whole = [_throughput_column(shown.throughput)] if shown.throughput else []
    costs = [_cost_column(cost) for cost in shown.costs]
    headline = Column(header, lambda row: _headline(row, first))
    cost, pace = (_of_encoder(one) if whole else one for one in (GFLOPS, IM_S))
    speeds = [pace, *whole, _speedup_column(bool(whole))]
    return [REDUCER, RATE, headline, *images, *scores, cost, *FLOPS, *speeds, *LEFT, *costs]


def _of_encoder(column: Column) -> Column:
    return replace(column, header=f"Encoder {column.header}")


def _metric_column(metric: Metric) -> Column:
    return Column(metric.label, lambda row: _of_metric(row, metric, interval=False))


def _cost_column(cost: Metric) -> Column:
    return Column(cost.label, lambda row: gflops(getattr(row, f"{cost.name}_gmacs")))


def _throughput_column(name: str) -> Column:
    def show(row: Any) -> str:
        return speed(row.whole_s, row.whole_s_low, row.whole_s_high) + (REMARK if row.whole_note else "")

    return Column(name, show)


def _speedup_column(whole: bool, interval: bool = True) -> Column:
    """Of the whole model, or of the backbone where there is no more to it."""
    name = "whole_speedup" if whole else "speedup"

    def show(row: Any) -> str:
        value, *bounds = (getattr(row, name + end) for end in INTERVAL)
        return ratio(value, *(bounds if interval else (math.nan, math.nan)))

    return Column("Speed-up", show)


def _shorter(frame: pd.DataFrame) -> list[tuple[str, Column | None]]:
    """What a narrow terminal goes without, in order, and what stands there instead."""
    shown = Shown.from_dict(frame.attrs["shown"])
    rest = [metric.label for metric in shown.metrics[1:] if not metric.hidden]
    own = ["Memory (MiB)", *(cost.label for cost in shown.costs[::-1]), "Tokens left", "Overhead (%)", *rest[::-1]]
    if shown.throughput:
        own.append(_of_encoder(IM_S).header)
    cost = (_of_encoder(GFLOPS) if shown.throughput else GFLOPS).header
    brief = [("Speed-up interval", _speedup_column(bool(shown.throughput), interval=False))]
    brief += [("GFLOPs interval", Column(cost, _gflops)), *SHORTER, (cost, None)]
    return [*((name, None) for name in own), *brief]


def write_tables(frame: pd.DataFrame, folder: str | Path) -> list[Path]:
    """Write table.csv, table.md and table.tex into `folder` (made if need be); equal frames give equal bytes.

    table.csv: the cell's key and every column of the frame in full precision, n/a where there is no data.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(groups(frame))
    texts = {
        "table.csv": frame.to_csv(index_label="key", na_rep=NO_DATA, lineterminator="\n"),
        "table.md": "\n".join(map(_markdown, parts)) or "No cells yet.\n",
        "table.tex": "\n".join([TEX_HEAD, *(_tex(part, i) for i, part in enumerate(parts))]) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in texts]


def console_table(frame: pd.DataFrame, width: int | None = None) -> Table:
    """The table for a terminal of `width` characters (default: this one's); what does not fit is named below.

    Reasons of failures stand below, too. Several (task, model, ...) stand below each other in one table.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    parts = list(groups(frame))
    columns, left_out = _fitting(frame, width or Console().width)
    said = dict.fromkeys(line for part in parts for line in (circumstances(part), *notes(part)))
    said |= {f"No room for: {', '.join(left_out)}; see table.md.": None} if left_out else {}
    heading, caption = title(parts[0]) if len(parts) == 1 else "", "\n".join(said)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(heading) if heading else None)
    table.caption, table.caption_justify = Text(caption), "left"
    for column in columns:
        table.add_column(Text("\n".join(_two_lines(column))), justify="right" if column.numeric else "left")
    for part in parts:
        if len(parts) > 1:
            table.add_row(Text(title(part), style="bold"), end_section=True)
        for block in _blocks(part):
            for row in block:
                style = {"failed": "red", "running": "yellow"}.get(row.status)
                cells = (column.show(row).split(": ")[0] for column in columns)  # "failed: reason"
                table.add_row(*map(Text, cells), style=style)
            table.add_section()
    return table


def _fitting(frame: pd.DataFrame, width: int) -> tuple[list[Column], list[str]]:
    """(columns that fit into `width` characters, what was left out for it)."""
    columns, left_out, rows = columns_for(frame), [], list(frame[frame.status == "done"].itertuples())

    def needed(column: Column) -> int:
        return 2 + max(map(len, [*(column.show(row) for row in rows), *_two_lines(column)]))

    for name, instead in _shorter(frame):
        room = 2 + sum(map(needed, columns))
        if room <= width:
            break
        header = instead.header if instead else name
        shorter = [instead if column.header == header else column for column in columns]
        shorter = [column for column in shorter if column]
        if 2 + sum(map(needed, shorter)) < room:
            columns, left_out = shorter, [*left_out, name]
    return columns, left_out


def _two_lines(column: Column) -> list[str]:
    return column.header.split(" ", 1)


def _blocks(group: Group) -> list[list[Any]]:
    """The group's rows, those of one reducer together."""
    return [list(rows) for _, rows in groupby(group.frame.itertuples(), key=lambda row: row.reducer)]


def _markdown(group: Group) -> str:
    columns = columns_for(group.frame)
    lines = [f"### {title(group)}", "", circumstances(group), "", markdown_row([column.header for column in columns])]
    lines.append(markdown_rule([column.numeric for column in columns]))
    lines += [markdown_row([column.show(row) for column in columns]) for row in group.frame.itertuples()]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(group)), ""])


def _tex(group: Group, number: int) -> str:
    columns = columns_for(group.frame)
    blocks = [
        "".join(" & ".join(tex_escaped(column.show(row)) for column in columns) + " \\\\\n" for row in block)
        for block in _blocks(group)
    ]
    caption = f"{title(group)}. Speed: {circumstances(group)}."
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
