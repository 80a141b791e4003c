"""All files of a report, of a run or of a study, from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from reports.frame import load_frame
from reports.marks.marked import marked
from reports.page.write import write_page
from reports.pareto.figures import write_pareto
from reports.pareto.runtimes import write_runtimes
from reports.pictures.picture_sheet import write_sheets
from reports.pictures.step_sheet import write_step_sheets
from reports.tables.results import write_tables
from reports.tables.speeds import write_speeds
from suite.errors import what_ran_out
from suite.store.folder import ENVIRONMENT, RunFolder
from suite.store.study import failures_in


def write_report(out: Path) -> tuple[list[Path], list[str]]:
    """Write tables, plots and the page into `out`/report. Returns the files, and notes on what could not be drawn.

    RequestError before anything is written, where the run, or one of a study's, cannot be read.
    """
    frame, folder = marked(load_frame(out)), out / "report"
    absent = {**frame.attrs["unread"], **failures_in(out)}
    nowhere = [run for run in frame.attrs["runs"] if RunFolder(run).read_environment() is None]
    files = [*write_tables(frame, folder, absent), *write_speeds(frame, folder)]
    notes = [f"page: where {run} was made cannot be told, it has no {ENVIRONMENT}" for run in nowhere]
    # the page shows the pictures that are there
    drawn = (
        ("plots", _plots, "pareto_*"),
        ("pictures", _pictures, "pictures*.png"),
        ("token groups", _tokens, "tokens*.png"),
        ("page", _page, "index.html"),
    )
    for what, write, names in drawn:
        try:
            written, said = write(out, frame, absent)
        except Exception as error:  # the numbers are there, and neither they nor the run may be lost for a drawing
            for path in folder.glob(names):  # of an earlier report: it would be taken for this one's
                path.unlink()
            if what_ran_out(error):
                raise
            whose = "" if isinstance(error, OSError) else f", a defect of the program: {type(error).__name__}"
            written, said = [], [f"{what} not written{whose}: {' '.join(str(error).split())}"]
        files, notes = [*files, *written], [*notes, *said]
    return files, notes


def _page(out: Path, frame: pd.DataFrame, absent: Mapping[str, str]) -> tuple[list[Path], list[str]]:
    path, lacking = write_page(out, frame, absent)
    return [path], [f"page: {reason}" for reason in lacking]


def _plots(out: Path, frame: pd.DataFrame, absent: Mapping[str, str]) -> tuple[list[Path], list[str]]:
    files, notes = write_pareto(frame, out / "report")
    return [*files, *write_runtimes(frame, out / "report")], notes


def _pictures(out: Path, frame: pd.DataFrame, absent: Mapping[str, str]) -> tuple[list[Path], list[str]]:
    return write_sheets(frame, out / "report"), []


def _tokens(out: Path, frame: pd.DataFrame, absent: Mapping[str, str]) -> tuple[list[Path], list[str]]:
    return write_step_sheets(frame, out / "report"), []
