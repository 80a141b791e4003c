"""All files of a run's report, from its store alone."""

from __future__ import annotations

from pathlib import Path

from reports.frame import load_frame
from reports.pareto import write_pareto
from reports.tables import write_tables


def write_report(out: Path) -> tuple[list[Path], list[str]]:
    """Write tables and plots into `out`/report. Returns the files, and notes on what could not be drawn."""
    frame, folder = load_frame(out), out / "report"
    tables = write_tables(frame, folder)
    plots, notes = write_pareto(frame, folder)
    return [*tables, *plots], notes
