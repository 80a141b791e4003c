"""Reading a run's folder cell by cell, whatever a killed, resumed or half-finished sweep left there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from suite.errors import RequestError

SCHEMA = 1
SAMPLE_COLUMNS = ("id", "label", "prediction", "correct", "correct5", "top5", "confidence")


@dataclass(frozen=True)
class Cell:
    """What the store holds about one cell. `samples` is indexed by the position of the id in the manifest."""

    key: str
    about: dict[str, Any]
    flops: dict[str, Any] | None
    speed: dict[str, Any] | None
    failed: dict[str, Any] | None
    samples: pd.DataFrame
    unreadable: list[str]
    missing: int
    expected: int

    @property
    def status(self) -> str:
        if self.failed is not None:
            return "failed"
        complete = self.expected > 0 and len(self.samples) + self.missing == self.expected
        return "done" if complete else "running"

    @property
    def comparable(self) -> tuple[Any, ...]:
        """Cells that agree in this are the same model on the same samples, but for the reducer."""
        names = ("task", "model", "weights", "weights_kind", "precision", "image_size")
        return tuple(self.about.get(name) for name in names)

    @property
    def reason(self) -> str:
        """Why the cell failed, or which of its files could not be read; "" if there is nothing to say."""
        reasons = []
        if self.failed is not None:
            reasons.append(str(self.failed.get("reason") or "no reason recorded"))
        if self.unreadable and self.status != "done":
            reasons.append("unreadable: " + ", ".join(self.unreadable))
        return "; ".join(reasons)


def read_cells(out: Path) -> list[Cell]:
    """Every cell of the run in folder `out`, ordered by key.

    A folder without cell.json is no cell yet; one that run.json does not list was replaced (its reducer's source
    has changed since) and is left out.

    Raises:
        RequestError: `out` is not the folder of a run, was written with another schema, or a JSON is damaged.
    """
    manifest, missing, listed = read_manifest(out), _read_missing(out), read_run(out).get("cells")
    folders = sorted(path.parent for path in (out / "cells").glob("*/cell.json"))
    return [_read_cell(folder, manifest, missing) for folder in folders if listed is None or folder.name in listed]


def read_run(out: Path) -> dict[str, Any]:
    """run.json of the run in folder `out`.

    Raises:
        RequestError: `out` is not the folder of a run, or was written with another schema.
    """
    run = _read_json(out / "run.json")
    if run is None:
        raise RequestError(f"{str(out)!r} is not the folder of a run: it has no run.json; give what --out named")
    if run.get("schema") != SCHEMA:
        raise RequestError(f"{out / 'run.json'} has schema {run.get('schema')}, this version reads {SCHEMA}")
    return run


def read_manifest(out: Path) -> pd.Index:
    """The ids of the expected samples, in order; empty while the sweep has not listed them."""
    read_run(out)
    path = out / "manifest.parquet"
    if not path.is_file():
        return pd.Index([], dtype="str")
    return pd.Index(pq.ParquetFile(path).read(columns=["id"]).column("id").to_pylist(), dtype="str")


def read_samples(folder: Path, manifest: pd.Index, columns: tuple[str, ...]) -> tuple[pd.DataFrame, list[str]]:
    """The outcomes of the manifest's ids, each once, indexed by position in it; and the unreadable files.

    The compacted file comes first, so its row wins over a shard that was left behind. An unreadable file
    counts as not there: its samples are then not scored, and the cell is not done.
    """
    parts, unreadable, complete = [], [], False
    for path in [folder / "samples.parquet", *sorted((folder / "samples").glob("batch-*.parquet"))]:
        if complete or not path.is_file():
            continue
        try:
            # ParquetFile, because read_table would take a folder named "a=b" for a partition column
            part = pq.ParquetFile(path).read().select(list(columns)).to_pandas()
        except (pa.ArrowException, OSError, KeyError):
            unreadable.append(path.name)
            continue
        part = part.set_index(manifest.get_indexer(part["id"]))
        parts.append(part[part.index >= 0])
        complete = path.name == "samples.parquet" and parts[0].index.nunique() == len(manifest)
    if not parts:
        return pd.DataFrame({name: [] for name in columns}, index=pd.Index([], dtype=np.int64)), unreadable
    samples = pd.concat(parts)
    return samples[~samples.index.duplicated()].sort_index(), unreadable


def _read_cell(folder: Path, manifest: pd.Index, missing: set[str]) -> Cell:
    samples, unreadable = read_samples(folder, manifest, ("id", "prediction", "correct", "correct5"))
    unscored = manifest.delete(samples.index.to_numpy())
    return Cell(
        key=folder.name,
        about=_read_json(folder / "cell.json") or {},
        flops=_read_json(folder / "flops.json"),
        speed=_read_json(folder / "speed.json"),
        failed=_read_json(folder / "failed.json"),
        samples=samples,
        unreadable=unreadable,
        missing=int(unscored.isin(missing).sum()),
        expected=len(manifest),
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RequestError(f"{path}: not valid JSON ({error}); delete it and run the sweep again") from error


def _read_missing(out: Path) -> set[str]:
    path, ids = out / "missing.jsonl", set()
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            ids.add(json.loads(line)["id"])
        except (ValueError, KeyError, TypeError):
            continue  # torn by a kill: the sample then counts as not scored yet, and its cells as not done
    return ids
