"""The table of a run: CSV for programs, Markdown, LaTeX and terminal for people, from one list of columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from reports.frame import AGREEMENT
from reports.groups import Group, groups, labels_of, shown_of
from reports.speeds import INTERVAL
from reports.tables import console
from reports.tables.console import ConsoleTable, Field, terminal_width
from reports.tables.records import records_of
from reports.text.headings import (
    AT_CHANCE,
    DISPUTED,
    DOMINATED,
    REMARK,
    UNCOUNTED,
    circumstances,
    is_at_chance,
    notes,
    once_each,
    titles,
)
from reports.text.markup import TEX_HEAD, csv_text, markdown_row, markdown_rule, tex_escaped
from reports.text.wording import (
    gflops,
    is_untrained,
    known,
    method_label,
    percent,
    rate_label,
    ratio,
    score,
    short_names,
    shorten,
    significant,
    speed,
    spread,
    training_mark,
    whole,
)
from suite.contract.metric import Cost, Metric
from suite.store.files import write_text

REASON_WIDTH = 60
AGAINST_FASTEST = "Against the fastest"
STYLES = {"failed": "red", "running": "yellow"}


@dataclass(frozen=True)
class Column:
    """One column for people: its header, and what it shows of a row (a namedtuple of the frame's columns)."""

    header: str
    show: Callable[[Any], str]
    numeric: bool = True
    names: bool = False  # with the others that do, tells a row from all others


def _of_metric(row: Any, metric: Metric, interval: bool) -> str:
    value, low, high = (getattr(row, metric.name + end) for end in INTERVAL)
    return score(value, low, high, interval, metric.scale, metric.decimals, metric.largest)


def _headline(row: Any, metric: Metric) -> str:
    """What the row's cell came to; with random weights, the agreement."""
    if row.status == "failed":
        return shorten(f"failed: {row.reason}", REASON_WIDTH)
    if row.status == "running":
        return f"running: {row.samples} of {row.expected}"
    if row.weights_kind == "random":
        return _of_metric(row, AGREEMENT, interval=True)
    dominated = any(known(floor) and floor for floor in (row.dominated_flops, row.dominated_time))
    marks = (AT_CHANCE if is_at_chance(row, metric) else "") + (DOMINATED if dominated else "")
    return _of_metric(row, metric, interval=True) + marks


def _gflops(row: Any) -> str:
    disputed = DISPUTED if known(row.disputed) and row.disputed else ""
    uncounted = UNCOUNTED if known(row.uncounted) and row.uncounted else ""
    return gflops(row.gmacs) + disputed + uncounted


def _marked(name: str, row: Any) -> str:
    return method_label(name, row.options, training_mark(row.training))


def _shortly_marked(name: str, row: Any) -> str:
    return method_label(name, row.options, training_mark(row.training, short=True))


def _starred(name: str, row: Any) -> str:
    """An asterisk for the word untrained; what was trained stays: it tells the row from its untrained twin."""
    return method_label(name, row.options) + "*" if is_untrained(row.training) else _marked(name, row)


def reducer_column(frame: pd.DataFrame, label: Callable[[str, Any], str] = _marked) -> Column:
    """The method with its options and training; of a file, with no more folders than tell it from the others."""
    short = short_names(frame.reducer)
    return Column("Reducer", lambda row: label(short[row.reducer], row), numeric=False, names=True)


def _gflops_spread(row: Any) -> str:
    return spread(_gflops(row), gflops(row.gmacs_p5), gflops(row.gmacs_p95))


def _speed(row: Any) -> str:
    return speed(row.im_s, row.im_s_low, row.im_s_high) + (REMARK if row.speed_note else "")


def _rate(row: Any) -> str:
    """The rate as it was run, or as asked where nothing came of it."""
    return next((rate for rate in (row.resolved_rate, row.rate) if known(rate) and rate), "–")


RATE = Column("Rate", lambda row: rate_label(row.rate, row.resolved_rate), numeric=False, names=True)
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
TRACED = (
    Column("Launches", lambda row: whole(row.launches)),
    Column("MB/image", lambda row: significant(row.moved_mb, 3)),
    Column("Host reads", lambda row: whole(row.host_reads)),
)


def columns_for(frame: pd.DataFrame, traced: bool = True) -> list[Column]:
    """The columns that people see: 'Images' only where some are missing, those of traces only where there is one.

    traced: False leaves the latter out, for want of room.
    """
    shown, random = shown_of(frame), set(frame.weights_kind == "random")
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
    speeds = [pace, *whole, _speedup_column(bool(whole)), *_against_fastest(frame)]
    traces = TRACED if traced and frame.launches.notna().any() else ()
    return [reducer_column(frame), RATE, headline, *images, *scores, cost, *FLOPS, *speeds, *LEFT, *costs, *traces]


def _of_encoder(column: Column) -> Column:
    return replace(column, header=f"Encoder {column.header}")


def _metric_column(metric: Metric) -> Column:
    return Column(metric.label, lambda row: _of_metric(row, metric, interval=False))


def _cost_column(cost: Cost) -> Column:
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


def _against_fastest(frame: pd.DataFrame) -> list[Column]:
    """The speed-up over the unreduced model as it runs fastest, where that is not under the runtime of the table."""
    if not ((frame.fastest_runtime != frame.runtime) & frame.speedup_fastest.notna()).any():
        return []
    ends = [f"speedup_fastest{end}" for end in INTERVAL]
    return [Column(AGAINST_FASTEST, lambda row: ratio(*(getattr(row, end) for end in ends)))]


def _shorter(frame: pd.DataFrame) -> list[tuple[str, str, Column | None]]:
    """What a narrow terminal goes without, in order: its name, the column, and what stands there instead."""
    shown = shown_of(frame)
    rest = [metric.label for metric in shown.metrics[1:] if not metric.hidden]
    own = [
        *(column.header for column in TRACED[::-1]),
        "Memory (MiB)",
        *(cost.label for cost in shown.costs[::-1]),
        "Tokens left",
        "Overhead (%)",
        *rest[::-1],
    ]
    if shown.throughput:
        own.append(_of_encoder(IM_S).header)
    cost = (_of_encoder(GFLOPS) if shown.throughput else GFLOPS).header
    return [
        *((name, name, None) for name in own),
        ("Speed-up interval", "Speed-up", _speedup_column(bool(shown.throughput), interval=False)),
        ("GFLOPs interval", cost, replace(GFLOPS, header=cost, show=_gflops)),
        ("what untrained ones lack", "Reducer", reducer_column(frame, _shortly_marked)),
        ("rate as asked", "Rate", replace(RATE, show=_rate)),
        ("the word untrained (*)", "Reducer", reducer_column(frame, _starred)),
        (cost, cost, None),
        *((name, name, None) for name in (shown.throughput or IM_S.header, "Speed-up")),
    ]


def write_tables(
    frame: pd.DataFrame, folder: str | Path, absent: Mapping[str, str] = MappingProxyType({})
) -> list[Path]:
    """Write table.csv, table.md and table.tex into `folder` (made if need be); equal frames give equal bytes.

    table.csv: the cell's key and every column of the frame in full precision, n/a where there is no data. absent: runs
    of a study that could not be run or read, and why; that stands at the end of table.md.
    """
    folder = Path(folder)
    parts = list(groups(frame))
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
    parts = list(groups(frame))
    rows = [row for part in parts for row in part.frame.itertuples()]
    steps = [
        (name, header, None if instead is None else _field(instead, rows)) for name, header, instead in _shorter(frame)
    ]
    said = once_each(zip(labels_of(parts), [[circumstances(part), *notes(part)] for part in parts], strict=True))
    styles = {i: colour for i, row in enumerate(rows) if (colour := STYLES.get(row.status))}
    return console.console_table(
        [_field(column, rows) for column in columns_for(frame)], width or terminal_width(), steps,
        title=titles(parts)[0] if len(parts) == 1 else "", notes=said, elsewhere="; see table.md",
        sections=_sections(parts), styles=styles, numbers=records_of(frame.reset_index(names="key")),
    )  # fmt: skip


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
