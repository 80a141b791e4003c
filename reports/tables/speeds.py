"""What was timed under every runtime and, of merged runs, on every device: a row each, CSV for programs, Markdown and
terminal for people."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd

from reports.frame import COLUMNS, TEXT, typed
from reports.groups import groups
from reports.speeds import LATENCIES, TIMED
from reports.tables.columns import AGAINST_FASTEST, RATE, Column, reducer_column
from reports.tables.console import ConsoleTable, Field, console_table, spare, terminal_width
from reports.tables.records import records_of
from reports.tables.runtimes import markdown_of
from reports.text.headings import titles
from reports.text.markup import csv_text, markdown_row, markdown_rule
from reports.text.wording import NO_DATA, ratio, significant, speed
from suite.store.files import write_text

OF_A_CELL = ("task", "model", "reducer", "training", "options", "rate", "resolved_rate", "precision", "batch_size")
NAME, TITLE = "speed", "Runtimes"
OWN, BEST = "Speed-up", AGAINST_FASTEST
FIRST = ("Reducer", "Rate", "Device", "Runtime", OWN, BEST)
"""Headers of what no terminal goes without."""


def speeds_of(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, device and runtime of a run's frame, indexed by cell and runtime; the columns are the frame's,
    and `device`. Only runs that were merged have timings on several."""
    context = frame.attrs.get("context", {})
    rows = [
        {"key": key, **{name: frame.at[key, name] for name in OF_A_CELL}, **of}
        for key in frame.index
        for of in context.get(key, {}).get("speeds", ())
    ]
    columns = {name: COLUMNS[name] for name in (*OF_A_CELL, *TIMED)} | {"device": TEXT}
    return typed(pd.DataFrame(rows, columns=["key", *columns]), columns).set_index(["key", "runtime"])


def write_speeds(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """speed.csv and speed.md in `folder`; none where nothing was timed."""
    speeds, files = speeds_of(frame), [folder / f"{NAME}.{kind}" for kind in ("csv", "md")]
    if speeds.empty:
        for file in files:  # of an earlier report
            file.unlink(missing_ok=True)
        return []
    for file, text in zip(files, (csv_text(speeds.reset_index()), _markdown(frame)), strict=True):
        write_text(file, text)
    return files


def speeds_table(frame: pd.DataFrame, width: int | None = None) -> ConsoleTable | None:
    """For a terminal, where it says more than the run's own table: of several runtimes or devices, or times of single
    images."""
    speeds = speeds_of(frame)
    several = speeds.index.get_level_values("runtime").nunique() > 1 or len(devices_of(speeds)) > 1
    if not several and speeds.single_p50_ms.isna().all():
        return None
    columns, parts = speed_columns(speeds), speed_parts(frame)
    rows = [row for _, of in parts for row in of]
    fields = [
        Field(column.header, [column.show(row) for row in rows], column.numeric, column.names, whole=column.numeric)
        for column in columns
    ]
    lesser = [column.header for column in columns[::-1] if column.header not in FIRST]
    sections = {i: "" for i in range(1, len(rows)) if rows[i].key != rows[i - 1].key}
    if len(parts) > 1:
        starts = accumulate((len(of) for _, of in parts), initial=0)
        sections |= {start: heading for start, (heading, _) in zip(starts, parts)}
    return console_table(
        fields, width or terminal_width(), spare(lesser), title=TITLE, notes=[explain(speeds)],
        elsewhere=f"; see {NAME}.md", sections=dict(sorted(sections.items())),
        numbers=records_of(speeds.reset_index()),
    )  # fmt: skip


def devices_of(speeds: pd.DataFrame) -> set[str]:
    return set(speeds.device) - {""}


def speed_parts(frame: pd.DataFrame) -> list[tuple[str, list[Any]]]:
    """(heading, rows) of every group that was timed."""
    parts = list(groups(frame))
    rows = [list(speeds_of(part.frame).reset_index().itertuples()) for part in parts]
    return [(heading, of) for heading, of in zip(titles(parts), rows, strict=True) if of]


def speed_columns(speeds: pd.DataFrame) -> list[Column]:
    """What people see; of latencies, energy and compile times only where there are some."""
    further = [
        *((f"latency_{part}_ms", f"{part} (ms)") for part in LATENCIES),
        *((f"single_{part}_ms", f"{part}, 1 image (ms)") for part in LATENCIES),
        ("energy_j", "J/image"),
        ("compile_s", "Prepared in (s)"),
    ]
    on = [Column("Device", lambda row: row.device, numeric=False)] if len(devices_of(speeds)) > 1 else []
    noted = [Column("Note", lambda row: row.speed_note, numeric=False)] if speeds.speed_note.any() else []
    return [
        reducer_column(speeds),
        RATE,
        *on,
        Column("Runtime", lambda row: row.runtime, numeric=False, names=True),
        Column("im/s", lambda row: speed(row.im_s, row.im_s_low, row.im_s_high)),
        Column(OWN, lambda row: ratio(row.speedup, row.speedup_low, row.speedup_high)),
        Column(BEST, lambda row: ratio(row.speedup_fastest, row.speedup_fastest_low, row.speedup_fastest_high)),
        *(_number(name, header) for name, header in further if speeds[name].notna().any()),
        *noted,
    ]


def _number(name: str, header: str) -> Column:
    return Column(header, lambda row: significant(getattr(row, name), 3))


def explain(speeds: pd.DataFrame) -> str:
    """How to read the rows."""
    fastest = ", ".join(sorted({name for name in speeds.fastest_runtime if name})) or NO_DATA
    return (
        f"{OWN}: over the unreduced model under the same runtime. {BEST}: over the unreduced model as it runs fastest "
        f"of all that was timed in the same rounds ({fastest}); below 1, not to reduce is faster. (ms): percentiles of "
        f"single forwards, on a whole batch and on one image, {NO_DATA} where there were too few (p99 needs 100)."
    )


def _markdown(frame: pd.DataFrame) -> str:
    speeds, parts = speeds_of(frame), speed_parts(frame)
    columns = speed_columns(speeds)
    head = [markdown_row([one.header for one in columns]), markdown_rule([one.numeric for one in columns])]
    lines = []
    for heading, rows in parts:
        lines += ["", *([f"#### {heading}", ""] if len(parts) > 1 else []), *head]
        lines += [markdown_row([one.show(row) for one in columns]) for row in rows]
        for device in dict.fromkeys(row.device for row in rows):
            lines += markdown_of([row for row in rows if row.device == device])
    return "\n".join([f"### {TITLE}", *lines, "", f"- {explain(speeds)}", ""])
