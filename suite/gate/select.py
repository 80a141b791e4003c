"""What a user names as a side of a comparison: a run, a baseline, or some cells of either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from suite.errors import RequestError, unknown
from suite.gate.baseline import FOLDER, baseline_path, read_baseline
from suite.gate.run_side import run_side
from suite.gate.side import Entry, Side
from suite.store.study import one_run


def load_side(text: str, folder: Path = FOLDER) -> Side:
    """'RUN', 'RUN:METHOD', 'RUN:METHOD RATE' or 'RUN#KEY', where RUN is a run's folder or a baseline's name or file.

    RATE is as it was asked for or what it came to; KEY the beginning of a cell's key.

    Raises:
        RequestError: there is no such run, baseline or cell.
    """
    # marks may be in the names of folders and methods ('my.py:Mine'), too
    for at in (len(text), *(place for place, sign in enumerate(text) if sign in ":#")):
        found = _source(text[:at], folder)
        if found is not None:
            mark, wanted = text[at : at + 1], text[at + 1 :].strip()
            chosen = _chosen(found, mark, wanted) if mark else found.entries
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
        return run_side(one_run(path), text)
    file = baseline_path(text, folder)
    return read_baseline(file, text) if file.is_file() else None


def _chosen(side: Side, mark: str, wanted: str) -> list[Entry]:
    if mark == "#":
        begun = [entry for entry in side.entries if wanted and entry.key.startswith(wanted)]
        found = [entry for entry in begun if entry.key == wanted] or begun
        if len(found) > 1:
            keys = ", ".join(entry.key for entry in found)
            raise RequestError(f"{wanted!r} begins the keys of {len(found)} cells of {side.name!r}: {keys}; write more")
        if not found:
            raise unknown(f"cell of {side.name!r}:", wanted, [entry.key for entry in side.entries])
        return found
    for names in (_names, _short_names):
        found = [entry for entry in side.entries if wanted in names(entry)]
        if found:
            return found
    of_it = [entry.label for entry in side.entries if wanted.startswith(entry.method)]
    known = of_it or {entry.method for entry in side.entries}
    raise unknown(f"method or cell of {side.name!r}:", wanted, known)


def _names(entry: Entry) -> set[str]:
    """What a cell may be called: its method, or method and rate."""
    return _with_rates(entry, {entry.method})


def _short_names(entry: Entry) -> set[str]:
    """Without options and training; the class alone of a reducer's file."""
    return _with_rates(entry, {entry.reducer, entry.reducer.rpartition(":")[2]})


def _with_rates(entry: Entry, methods: set[str]) -> set[str]:
    return methods | {f"{method} {rate}".strip() for method in methods for rate in (entry.rate, entry.resolved_rate)}
