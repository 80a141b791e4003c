"""What a user names as a side of a comparison: a run, a baseline, or some cells of either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from suite.errors import RequestError, unknown
from suite.gate.baseline import FOLDER, baseline_path, read_baseline
from suite.gate.run_side import run_side
from suite.gate.side import Entry, Side


def load_side(text: str, folder: Path = FOLDER) -> Side:
    """'RUN', 'RUN:METHOD', 'RUN:METHOD RATE' or 'RUN#KEY', where RUN is a run's folder or a baseline's name or file.

    RATE is as it was asked for or what it came to; KEY the beginning of a cell's key.

    Raises:
        RequestError: there is no such run, baseline or cell.
    """
    for mark in ("", ":", "#"):
        source, part, wanted = text.rpartition(mark) if mark else (text, "", "")
        if mark and not part:
            continue
        found = _source(source, folder)
        if found is not None:
            chosen = _chosen(found, mark, wanted.strip()) if mark else found.entries
            return replace(found, name=text, entries=tuple(chosen))
    known = sorted(file.stem for file in folder.glob("*.parquet"))
    raise RequestError(
        f"{text!r} is neither the folder of a run nor a baseline (known: {', '.join(known) or 'none'}); "
        "write RUN, RUN:METHOD or 'RUN:METHOD RATE'"
    )


def _source(text: str, folder: Path) -> Side | None:
    if not text:
        return None
    path = Path(text)
    if path.is_dir():
        return run_side(path, text)
    file = baseline_path(text, folder)
    return read_baseline(file, text) if file.is_file() else None


def _chosen(side: Side, mark: str, wanted: str) -> list[Entry]:
    if mark == "#":
        found = [entry for entry in side.entries if wanted and entry.key.startswith(wanted)]
        if len(found) != 1:
            raise unknown(f"cell of {side.name!r}:", wanted, [entry.key for entry in side.entries])
        return found
    found = [entry for entry in side.entries if wanted in _names(entry)]
    if not found:
        of_it = [entry.label for entry in side.entries if wanted.startswith(entry.method)]
        known = of_it or {entry.method for entry in side.entries}
        raise unknown(f"method or cell of {side.name!r}:", wanted, known)
    return found


def _names(entry: Entry) -> set[str]:
    """What a cell may be called: its method, or method and rate; the class alone of a reducer's file."""
    methods = {entry.method, entry.reducer, entry.reducer.rpartition(":")[2]}
    return methods | {f"{method} {rate}".strip() for method in methods for rate in (entry.rate, entry.resolved_rate)}
