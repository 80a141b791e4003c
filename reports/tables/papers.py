"""A paper's table with measured beside published figures: for a terminal, Markdown, LaTeX, CSV and HTML.

All are made of one list of columns. Reasons that a verdict needs are numbered, and stand below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import pandas as pd

from reports.tables.columns import Column
from reports.tables.console import ConsoleTable, Field, console_table, spare, terminal_width
from reports.text.markup import TEX_HEAD, csv_text, html_row, markdown_row, markdown_rule, tex_escaped
from reports.text.wording import NO_DATA, gflops, known, percent, speed

FORMATS = ("md", "latex", "csv", "html")
DISPENSABLE = ("GFLOPs", "Run as")  # where a terminal is too narrow
DERIVED, SECONDARY = "°", "*"
SCORES = {"top1": "Top-1 (%)", "miou": "mIoU (%)", "cider": "CIDEr", "fid": "FID"}
FURTHER_SCORES = {"bleu_4": "B@4", "meteor": "METEOR", "spice": "SPICE"}
STYLES = {"reproduced": "green", "differs": "yellow"}
CSS = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color-scheme:light dark}table{border-collapse:collapse}"
    "th,td{padding:.25em .7em;text-align:left}.number{text-align:right;font-variant-numeric:tabular-nums}"
    "th{border-bottom:1px solid}div{overflow-x:auto}"
)


def columns_for(frame: pd.DataFrame) -> list[Column]:
    """What people see of a table's frame; scores and speeds only where there are some to see."""
    names, *parts = column_groups(frame)
    return [*names, *(column for part in parts for column in part)]


def column_groups(frame: pd.DataFrame) -> list[list[Column]]:
    """What names a row, its costs and, unless costs alone were asked for, its scores and speeds."""
    reasons = reasons_of(frame)
    names = [
        Column("Model", lambda row: row.model, numeric=False, names=True),
        Column("Method", lambda row: row.method + (SECONDARY if row.secondary else ""), numeric=False, names=True),
        Column("Rate", lambda row: row.setting or "–", numeric=False, names=True),
        Column("Run as", lambda row: (row.run_as or "–") + (DERIVED if row.derived else ""), numeric=False),
    ]
    columns = [Column("GFLOPs", lambda row: gflops(row.gflops))]
    if frame.attrs["convention"]:
        columns.append(Column("GFLOPs, their way", lambda row: gflops(row.gflops_converted)))
    columns += [
        Column("GFLOPs published", lambda row: row.gflops_printed or NO_DATA),
        Column("Diff. (%)", lambda row: percent(row.gflops_difference, 1, signed=True)),
        Column("Verdict", _verdict("gflops", reasons), numeric=False),
    ]
    if frame.attrs["flops_only"]:
        return [names, columns]
    speeds = _speed_columns(frame)
    return [names, columns, _score_columns(frame, reasons), *([speeds] if speeds else [])]


def _score_columns(frame: pd.DataFrame, reasons: list[str]) -> list[Column]:
    name = SCORES[frame.attrs["score"]]
    return [
        Column(name, _score),
        Column(f"{name} published", lambda row: f"{row.score_published:g}" if known(row.score_published) else NO_DATA),
        Column("Diff.", lambda row: _signed(row.score_difference)),
        Column(f"{name.split()[0]} verdict", _verdict("score", reasons), numeric=False),
        *_further_columns(frame),
    ]


def _further_columns(frame: pd.DataFrame) -> list[Column]:
    columns = []
    for name in frame.attrs["further_scores"]:
        columns.append(Column(FURTHER_SCORES[name], partial(_number, name=name)))
        if frame[f"{name}_published"].notna().any():
            columns.append(Column(f"{FURTHER_SCORES[name]} published", partial(_number, name=f"{name}_published")))
    return columns


def _number(row: Any, name: str) -> str:
    value = getattr(row, name)
    return f"{value:.2f}" if known(value) else NO_DATA


def _speed_columns(frame: pd.DataFrame) -> list[Column]:
    if not frame.im_s.notna().any():
        return []
    return [
        Column("im/s", lambda row: speed(row.im_s, row.im_s_low, row.im_s_high)),
        Column("im/s published", lambda row: f"{row.im_s_published:g}" if known(row.im_s_published) else NO_DATA),
    ]


def _verdict(name: str, reasons: list[str]) -> Callable[[Any], str]:
    def show(row: Any) -> str:
        why: str = getattr(row, f"{name}_why")
        verdict: str = getattr(row, f"{name}_verdict")
        return verdict + (f" [{reasons.index(why) + 1}]" if why else "")

    return show


def _score(row: Any) -> str:
    if not known(row.score):
        return NO_DATA
    return f"{row.score:.2f}" + (f" [{row.score_low:.2f}, {row.score_high:.2f}]" if known(row.score_low) else "")


def _signed(value: float) -> str:
    return percent(value / 100, 2, signed=True) if known(value) else NO_DATA


def reasons_of(frame: pd.DataFrame) -> list[str]:
    """Every reason of a verdict once, in the order in which a reader meets them."""
    names = ["gflops_why"] if frame.attrs["flops_only"] else ["gflops_why", "score_why"]
    met = (getattr(row, name) for row in frame.itertuples() for name in names)
    return list(dict.fromkeys(why for why in met if why))


def notes_for(frame: pd.DataFrame) -> list[str]:
    """What stands below the table: the verdicts counted, the reasons, and how to read it."""
    attrs, said = frame.attrs, []
    if frame.empty:
        return [f"{NO_DATA}: {attrs['absent']}.", *attrs["notes"]]
    kinds = {"GFLOPs": "gflops_verdict"} | ({} if attrs["flops_only"] else {SCORES[attrs["score"]]: "score_verdict"})
    for what, column in kinds.items():
        counts = Counter(frame[column])
        said.append(f"{what}: " + ", ".join(f"{count} {word}" for word, count in counts.most_common()) + ".")
    said += [f"[{number}] {why}." for number, why in enumerate(reasons_of(frame), start=1)]
    said.append(
        "1 FLOP = 1 multiply-accumulate; counted from shapes as operators are dispatched, with what a method itself "
        "computes. Reproduced: within 2 % of the printed figure or within its rounding, whichever is wider."
    )
    if attrs["convention"]:
        said.append(f"Their way: {attrs['convention']}; this is what the published figures are compared with.")
    if frame.derived.any():
        said.append(
            f"{DERIVED} The table prints no rate: this one is known from elsewhere or has the nearest cost, so "
            "agreement in GFLOPs says that there is such a rate, and no more."
        )
    if frame.secondary.any():
        said.append(f"{SECONDARY} Read in another place than the method's own paper or repository.")
    if not attrs["flops_only"]:
        said += _score_notes(frame)
    return [*said, *attrs["notes"]]


def _score_notes(frame: pd.DataFrame) -> list[str]:
    counts = sorted({f"{samples:,.0f}" for samples in frame.samples.dropna()})
    said = [
        f"Scores on {' or '.join(counts) or NO_DATA} samples, [95 % interval]. Reproduced: the printed score is within "
        "0.1 points (unreduced) or 0.2 (reduced) of the measured one or of its interval."
    ]
    if frame.im_s.notna().any():
        here = ", ".join(sorted(set(frame.device) - {""})) or NO_DATA
        there = ", ".join(sorted(set(frame.device_published) - {""})) or "device not stated"
        said.append(f"im/s here: {here}; published: {there}. Speeds of different devices are not compared.")
    return said


def console_tables(frame: pd.DataFrame, width: int | None = None) -> list[ConsoleTable]:
    """For a terminal of `width` characters (default: this one's): costs, below them scores, then speeds; notes last.

    The rows of a model stand together. Verdicts are never left out.
    """
    names, *parts = column_groups(frame)
    width, tables, rows = width or terminal_width(), [], list(frame.itertuples())
    models = list(frame.model) if rows else []
    sections = {i: "" for i in range(1, len(models)) if models[i] != models[i - 1]}
    for number, part in enumerate(parts):
        fields = [
            Field(column.header, [column.show(row) for row in rows], column.numeric, column.names, whole=column.numeric)
            for column in (*names, *part)
        ]
        tables.append(
            console_table(
                fields,
                width,
                spare(DISPENSABLE),
                title="" if number else frame.attrs["title"],
                sections=sections,
                notes=notes_for(frame) if part is parts[-1] else (),
                elsewhere="; see --format md",
                paint=_colour,
            )
        )
    return tables


def _colour(cell: str) -> str:
    return STYLES.get(cell.split(" [")[0], "")


def render(frame: pd.DataFrame, format: str) -> str:
    """The table as text in one of FORMATS; csv has all columns of the frame. ValueError for others."""
    if format == "csv":
        return csv_text(frame)
    written = {"md": _markdown, "latex": _latex, "html": _html}.get(format)
    if written is None:
        raise ValueError(f"format {format!r} is none of {', '.join(FORMATS)}")
    columns = columns_for(frame)
    return written(frame, columns, [[column.show(row) for column in columns] for row in frame.itertuples()])


def _markdown(frame: pd.DataFrame, columns: list[Column], rows: list[list[str]]) -> str:
    lines = [f"### {frame.attrs['title']}", ""]
    if rows:
        lines += [markdown_row([column.header for column in columns])]
        lines += [markdown_rule([column.numeric for column in columns]), *map(markdown_row, rows), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes_for(frame)), ""])


def _latex(frame: pd.DataFrame, columns: list[Column], rows: list[list[str]]) -> str:
    sides = "".join("r" if column.numeric else "l" for column in columns)
    body = []
    for number, (model, cells) in enumerate(zip(frame.model if rows else (), rows)):
        if number and model != frame.model.iloc[number - 1]:
            body.append(r"\midrule")
        body.append(" & ".join(map(tex_escaped, cells)) + r" \\")
    return "\n".join(
        [
            TEX_HEAD,
            r"\begin{table*}[t]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{tex_escaped(frame.attrs['title'])}}}",
            rf"\label{{tab:{frame.attrs['name']}}}",
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            " & ".join(tex_escaped(column.header) for column in columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip {{\scriptsize {tex_escaped(note)}\par}}" for note in notes_for(frame)),
            r"\end{table*}",
            "",
        ]
    )


def _html(frame: pd.DataFrame, columns: list[Column], rows: list[list[str]]) -> str:
    title, sides = escape(frame.attrs["title"]), [column.numeric for column in columns]
    head = html_row([column.header for column in columns], sides, tag="th")
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{CSS}</style>',
            f'<meta name="viewport" content="width=device-width"><h1>{title}</h1>',
            f"<div><table><thead>{head}</thead><tbody>",
            *(html_row(cells, sides) for cells in rows),
            "</tbody></table></div><ul>",
            *(f"<li>{escape(note)}</li>" for note in notes_for(frame)),
            "</ul></html>",
            "",
        ]
    )
