"""All files of a run's report, from its folder alone."""

from __future__ import annotations

from pathlib import Path

from reports.frame import load_frame
from reports.page.write import write_page
from reports.pareto import write_pareto
from reports.tables import write_tables


def write_report(out: Path) -> tuple[list[Path], list[str]]:
    """Write tables, plots and the page into `out`/report. Returns the files, and notes on what could not be drawn."""
    frame, folder = load_frame(out), out / "report"
    tables = write_tables(frame, folder)
    plots, notes = write_pareto(frame, folder)
    page, lacking = write_page(out, frame)
    return [page, *tables, *plots], [*notes, *(f"page: {reason}" for reason in lacking)]
