"""A baseline: a run's outcomes, costs and speeds in one small file that can be committed.

One row a sample; the columns `<cell>/<name>` are a cell's outcomes, `content` a digest of the sample's files. What the
cells are, and what they share with every run that may be compared with them, stands in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from suite.contract.metric import TaskReport
from suite.errors import RequestError, unknown
from suite.gate.side import Entry, Side
from suite.store.files import atomic_path
from suite.store.schema import SCHEMA
from suite.store.upgrade import upgrade

FOLDER, SUFFIX = Path("baselines"), ".parquet"
FORMAT, KEY, DIGEST = 2, b"reducerbench", b"reducerbench.sha256"
READABLE = (1, FORMAT)
"""Format 1 says nothing of disputed costs."""
CONTENT = "content"
PRIVATE = ("data", "out", "device", "workers", "executor", "executor_cores", "timing_device")
"""Of a spec: where things lie on one machine, and who does the work."""


def baseline_path(name: str, folder: Path = FOLDER) -> Path:
    """NAME -> baselines/NAME.parquet; a path stays what it is."""
    return Path(name) if name.endswith(SUFFIX) else folder / f"{name}{SUFFIX}"


def list_baselines(folder: Path = FOLDER) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def save_baseline(side: Side, path: Path, force: bool = False) -> tuple[list[Entry], list[Entry]]:
    """Write the finished cells of `side`; (written, left out).

    Raises:
        RequestError: `path` exists and not `force`, no cell is finished, or the folder cannot be written.
    """
    if path.exists() and not force:
        raise RequestError(f"baseline {str(path)!r} exists; give another name, or --force to replace it")
    done = [entry for entry in side.entries if entry.status == "done"]
    left_out = [entry for entry in side.entries if entry.status != "done"]
    if not done:
        raise RequestError(f"{side.name!r} has no finished cell; run it to its end before it is saved")
    outcomes = {entry.key: entry.read() for entry in done}
    ids = max((frame.index for frame in outcomes.values()), key=len)
    for frame in outcomes.values():
        ids = ids.append(frame.index.difference(ids, sort=False))
    columns = {"id": pa.array(ids)}
    if side.contents:
        columns[CONTENT] = pa.array([side.contents.get(id) for id in ids], pa.string())
    for key, frame in outcomes.items():
        frame = frame.reindex(ids)
        columns |= {f"{key}/{name}": pa.Array.from_pandas(_whole(frame[name])) for name in frame}
    about = json.dumps(_about(side, done), sort_keys=True, allow_nan=False).encode()
    table = pa.table(columns)
    table = table.replace_schema_metadata({KEY: about, DIGEST: _digest(about, table)})
    try:
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", write_statistics=False)
    except OSError as error:
        raise RequestError(f"baseline {str(path)!r} cannot be written: {error.strerror}") from error
    return done, left_out


def _whole(values: pd.Series) -> pd.Series:
    """Truth values with gaps as such; they would be written as objects."""
    return values.astype("boolean") if values.dropna().map(type).eq(bool).all() else values


def _about(side: Side, entries: list[Entry]) -> dict[str, Any]:
    cells = []
    for entry in entries:
        cell = asdict(entry)
        del cell["read"]
        cells.append(cell)
    spec = {name: value for name, value in side.spec.items() if name not in PRIVATE}
    run = {"schema": SCHEMA, "identity": side.identity, "spec": spec, "shown": side.shown.as_dict()}
    return {"format": FORMAT, **run, "cells": cells}


def read_baseline(path: Path, name: str) -> Side:
    """RequestError for a file that is missing, damaged, or no baseline of this version."""
    if not path.is_file():
        known = [file.stem for file in list_baselines(path.parent)]
        raise unknown("baseline", name, known or ["none; see baseline save"])
    try:
        with pq.ParquetFile(path) as file:
            metadata, table = file.schema_arrow.metadata or {}, file.read()
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"baseline {str(path)!r} is damaged ({reason}); restore or save it again") from error
    about = metadata.get(KEY)
    if about is None:
        raise RequestError(f"{str(path)!r} is a Parquet file, but no baseline; make one with baseline save NAME RUN")
    said = _read_fields(about)
    if said.get("format", FORMAT) not in READABLE:  # first, for another format may have another digest
        raise RequestError(
            f"baseline {str(path)!r} has format {said['format']}, this version reads {FORMAT}; save it again"
        )
    if not said or _digest(about, table) != metadata.get(DIGEST):
        raise RequestError(f"baseline {str(path)!r} is damaged (its content was changed); restore or save it again")
    said = upgrade("run", path, said)
    entries = tuple(Entry(**cell, read=partial(_outcomes, table, cell["key"])) for cell in said["cells"])
    return Side(name, said["identity"], said["spec"], TaskReport.from_dict(said["shown"]), entries, _contents(table))


def _read_fields(about: bytes) -> dict[str, Any]:
    """{} for what is damaged."""
    try:
        said = json.loads(about)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _digest(about: bytes, table: pa.Table) -> bytes:
    """Of all that a reader makes use of; a file's own checks leave gaps."""
    digest = hashlib.sha256(about)
    for name in table.column_names:
        digest.update(json.dumps([name, table[name].to_pylist()]).encode())
    return digest.hexdigest().encode()


def _contents(table: pa.Table) -> dict[str, str]:
    """Digests of what the samples' files held; none where an earlier version did not store them."""
    if CONTENT not in table.column_names:
        return {}
    known = zip(table["id"].to_pylist(), table[CONTENT].to_pylist(), strict=True)
    return {id: digest for id, digest in known if digest}


def _outcomes(table: pa.Table, key: str) -> pd.DataFrame:
    """One cell's outcomes by sample id; samples that it has none of are left out."""
    names = [name for name in table.column_names if name.startswith(f"{key}/")]
    frame = table.select(["id", *names]).to_pandas().set_index("id")
    frame.columns = [name.partition("/")[2] for name in names]
    return frame.dropna(how="all")
