"""All that is drawn of a run: exhibits, page, tables and plots."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from reports.frame import load_frame
from reports.marks.marked import marked
from reports.page.write import write_page
from reports.write import write_report
from suite.pictures.exhibits import make_exhibits
from suite.sweep.plan import Plan


def draw_preview(out: Path) -> None:
    """The page alone, of a run that goes on: it renews itself. What goes wrong with it waits for the report."""
    with suppress(Exception):
        write_page(out, marked(load_frame(out)), live=True)


def draw_report(out: Path, plan: Plan | None) -> tuple[list[Path], list[str]]:
    """The files of the report of folder `out`, and lines that the user should read.

    plan: what was executed there; None of a study, whose pictures are those of its runs.
    """
    if plan is not None:
        make_exhibits(out, plan)
    return write_report(out)
