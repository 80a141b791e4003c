"""What binds a cell on a GPU, in one sentence a cell, for its card and for the list below the table."""

from __future__ import annotations

from pathlib import Path

from reports.groups import Group
from reports.text.wording import row_label
from reports.traces import explain
from suite.measure.roofline import H100
from suite.store.folder import RunFolder
from suite.store.sealed import DamagedError


def sentences_of(part: Group) -> dict[str, str]:
    """By the keys of the cells; "" for one without a trace, or with a damaged one."""
    return {key: _sentence(part.out, key) for key in part.frame.index}


def _sentence(out: Path, key: str) -> str:
    cell = RunFolder(out).cell(key)
    try:
        about, kernels = cell.read("cell"), cell.read("kernels")
    except DamagedError:
        return ""
    return explain(kernels, about["depth"], H100) if about and kernels else ""


def strongest(part: Group, sentences: dict[str, str]) -> list[tuple[str, str]]:
    """(cell, its sentence) of every method at the lowest cost that it was traced at."""
    found: dict[tuple[str, str, str], tuple[str, str]] = {}
    for row in part.frame.itertuples():  # from the highest cost of a method down
        if sentences[row.Index]:
            found[row.reducer, row.options, row.training] = row_label(row), sentences[row.Index]
    return list(found.values())
