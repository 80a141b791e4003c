"""What others open: spreadsheets, terminals and Markdown are given text, whatever a name holds."""

from __future__ import annotations

import io

import pandas as pd
from rich.console import Console

from reports.tables.console import console_table, fields_of
from reports.text.markup import csv_text
from suite.sweep.progress import Progress

FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1,9)", "\t=1", "\r=1")


def test_a_name_that_a_spreadsheet_would_compute_is_text():
    frame = pd.DataFrame({"reducer": [*FORMULAS, "tome", None], "top1": [-0.5] * 8})
    read = pd.read_csv(io.StringIO(csv_text(frame)))
    assert read.reducer.tolist()[:7] == [*(f"'{name}".replace("\r", " ") for name in FORMULAS), "tome"]
    assert read.top1.tolist() == [-0.5] * 8


def test_numbers_stay_numbers_in_columns_of_text():
    assert csv_text(pd.DataFrame({"value": ["-0.5", "+3", "-35%", 7, None]})) == "value\n-0.5\n+3\n-35%\n7\nn/a\n"


def test_a_name_that_would_steer_a_terminal_is_written_out():
    buffer = io.StringIO()
    console = Console(file=buffer, width=120)
    steering = "a\x1b[2Jb\x07c"
    fields = fields_of((steering, "Rate"), [[steering, steering]])
    for width in (120, 10):
        console.print(console_table(fields, width, title=steering, notes=[steering], sections={0: steering}))
    progress = Progress(console)
    progress.note(steering)
    progress.failed(steering, steering)
    assert "\x1b" not in buffer.getvalue()
    assert "\x07" not in buffer.getvalue()
    assert "a\\x1b[2Jb\\x07c" in buffer.getvalue()
