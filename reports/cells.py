"""Reading a run's folder cell by cell, whatever a killed, resumed or half-finished sweep left there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from suite.store.folder import CellFolder, RunFolder
from suite.store.shards import read_rows


@dataclass(frozen=True)
class Cell:
    """What the store holds about one cell. `samples` is indexed by the position of the id in the manifest."""

    key: str
    about: dict[str, Any]
    flops: dict[str, Any] | None
    scores: dict[str, Any] | None
    speed: dict[str, Any] | None
    whole_speed: dict[str, Any] | None
    failed: dict[str, Any] | None
    samples: pd.DataFrame
    unreadable: list[str]
    missing: int
    expected: int

    @property
    def status(self) -> str:
        if self.failed is not None:
            return "failed"
        return "done" if self.complete and self.scores is not None else "running"

    @property
    def complete(self) -> bool:
        """Whether every readable sample has an outcome."""
        return self.expected > 0 and len(self.samples) + self.missing == self.expected

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
        if self.status == "running" and self.complete:
            reasons.append("predictions are complete, but not scored yet; run the same command again")
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
    run = RunFolder(out)
    listed, manifest = run.read_run()["cells"], read_manifest(out)
    missing = {record["id"] for record in run.read_missing()}
    cells = [run.cell(key) for key in sorted(listed)]
    return [_read_cell(cell, manifest, missing) for cell in cells if cell.read("cell") is not None]


def read_manifest(out: Path) -> pd.Index:
    """The ids of the expected samples, in order; empty while the sweep has not listed them."""
    return pd.Index(RunFolder(out).read_ids(), dtype="str")


def read_samples(
    folder: Path, manifest: pd.Index, columns: tuple[str, ...] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """The outcomes of the manifest's ids, each once, indexed by position in it; and the unreadable files.

    columns: None for all that there are. The compacted file comes first, so its row wins over a shard that was left
    behind. An unreadable file counts as not there: its samples are then not scored, and the cell is not done.
    """
    parts, unreadable, complete = [], [], False
    for path in [folder / "samples.parquet", *sorted((folder / "samples").glob("batch-*.parquet"))]:
        if complete or not path.is_file():
            continue
        try:
            part = read_rows(path, columns).to_pandas()
            if columns is not None:
                part = part[list(columns)]
        except (pa.ArrowException, OSError, KeyError):
            unreadable.append(path.name)
            continue
        part = part.set_index(manifest.get_indexer(part["id"]))
        parts.append(part[part.index >= 0])
        complete = path.name == "samples.parquet" and parts[0].index.nunique() == len(manifest)
    if not parts:
        return pd.DataFrame({name: [] for name in columns or ()}, index=pd.Index([], dtype=np.int64)), unreadable
    samples = pd.concat(parts)
    return samples[~samples.index.duplicated()].sort_index(), unreadable


def _read_cell(cell: CellFolder, manifest: pd.Index, missing: set[str]) -> Cell:
    samples, unreadable = read_samples(cell.path, manifest, ("id", "prediction"))
    unscored = manifest.delete(samples.index.to_numpy())
    return Cell(
        key=cell.path.name,
        about=cell.read("cell"),
        flops=cell.read("flops"),
        scores=cell.read("scores"),
        speed=cell.read("speed"),
        whole_speed=cell.read("whole_speed"),
        failed=cell.read("failed"),
        samples=samples,
        unreadable=unreadable,
        missing=int(unscored.isin(missing).sum()),
        expected=len(manifest),
    )
