"""Reading a run's folder cell by cell, whatever a killed, resumed or half-finished sweep left there."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from suite.store.folder import CellFolder, RunFolder
from suite.store.merging.timings import main_device
from suite.store.schema import TIMINGS
from suite.store.sealed import DamagedError


@dataclass(frozen=True)
class Cell:
    """What the store holds about one cell. `samples` is indexed by the position of the id in the manifest."""

    key: str
    about: dict[str, Any]
    flops: dict[str, Any] | None
    kernels: dict[str, Any] | None
    scores: dict[str, Any] | None
    timings: dict[str, dict[str, dict[str, Any]]]  # a file of TIMINGS -> runtime -> what was measured
    elsewhere: dict[str, dict[str, dict[str, dict[str, Any]]]]  # the same by other devices than that of `timings`
    failed: dict[str, Any] | None
    samples: pd.DataFrame
    damaged: list[str]
    missing: int
    expected: int

    @property
    def status(self) -> str:
        if self.failed is not None or self.damaged:
            return "failed"
        return "done" if self.complete and self.scores is not None else "running"

    def timed(self, file: str, runtime: str | None) -> dict[str, Any] | None:
        """What was measured under a runtime; None: nothing."""
        return self.timings[file].get(runtime or "")

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
        """Why the cell failed, and which of its files are damaged; "" if there is nothing to say."""
        reasons = list(self.damaged)
        if self.failed is not None:
            reasons.append(str(self.failed.get("reason") or "no reason recorded"))
        if self.status == "running" and self.complete:
            reasons.append("predictions are complete, but not scored yet; run the same command again")
        return "; ".join(reasons)


def read_cells(out: Path) -> list[Cell]:
    """Every cell of the run in folder `out`, ordered by key.

    A folder without cell.json is no cell yet; one that run.json does not list was replaced (its reducer's source
    has changed since) and is left out.

    Raises:
        RequestError: `out` is not the folder of a run, was written with another schema, or one of the files that all
            cells share is damaged.
    """
    folder = RunFolder(out)
    run, manifest = folder.read_run(), read_manifest(out)
    missing = {record["id"] for record in folder.read_missing()}
    cells = [_read_cell(folder.cell(key), run, manifest, missing) for key in sorted(run["cells"])]
    return set_apart([cell for cell in cells if cell is not None])


def set_apart(cells: list[Cell]) -> list[Cell]:
    """The cells with the timings of one device, that of most, and those of others `elsewhere`: a run that was continued
    on another device has some of both, which stand in no column together."""
    main = main_device(map(devices_of, cells))
    return [_without_own(cell) if devices_of(cell) not in ([], [main]) else cell for cell in cells]


def _without_own(cell: Cell) -> Cell:
    device, *_ = devices_of(cell)
    timed = {name: runtimes for name, runtimes in cell.timings.items() if runtimes}
    return replace(cell, timings={name: {} for name in TIMINGS}, elsewhere={device: timed, **cell.elsewhere})


def devices_of(cell: Cell) -> list[str]:
    """Those that its timings name, each once."""
    timed = [speed for runtimes in cell.timings.values() for speed in runtimes.values()]
    return list(dict.fromkeys(speed["device"] for speed in timed if speed.get("device")))


def read_manifest(out: Path) -> pd.Index:
    """The ids of the expected samples, in order; empty while the sweep has not listed them."""
    return pd.Index(RunFolder(out).read_ids(), dtype="str")


def read_samples(
    folder: Path, manifest: pd.Index, columns: tuple[str, ...] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """The outcomes of the manifest's ids, each once, indexed by position in it; and what is damaged of them.

    columns: None for all that there are, the ids among them. The compacted file comes first, so its row wins over one
    that was left behind. A damaged file counts as not there.
    """
    shards, parts, damaged, complete = CellFolder(folder).shards, [], [], False
    wanted = None if columns is None else tuple(dict.fromkeys(("id", *columns)))
    logged = shards.read_logged(wanted)  # before the files, where they are put when the run that makes them ends
    for name in list(shards.names()):
        if complete:
            break
        try:
            part = shards.files.read_rows(name, wanted).to_pandas()
            places = manifest.get_indexer(part["id"])
            if name == shards.whole and len(manifest) and len(places) and (places < 0).all():
                raise DamagedError(
                    shards.files.path(name), "none of its samples is in manifest.parquet, or that is damaged"
                )
        except FileNotFoundError:  # the run goes on, and has joined the batches in the meantime
            continue
        except DamagedError as error:
            damaged.append(str(error))
            continue
        parts.append(_placed(part, places, columns))
        complete = name == shards.whole and parts[0].index.nunique() == len(manifest)
    if logged and not complete:
        part = pa.concat_tables(logged).to_pandas()
        parts.append(_placed(part, manifest.get_indexer(part["id"]), columns))
    if not parts:
        return pd.DataFrame({name: [] for name in columns or ()}, index=pd.Index([], dtype=np.int64)), damaged
    samples = pd.concat(parts)
    return samples[~samples.index.duplicated()].sort_index(), damaged


def _placed(rows: pd.DataFrame, places: np.ndarray, columns: tuple[str, ...] | None) -> pd.DataFrame:
    """Those of the rows that have a place, by it, with these columns."""
    rows = rows.set_index(places)
    return rows.loc[rows.index >= 0, slice(None) if columns is None else list(columns)]


def read_columns(folder: Path, manifest: pd.Index, columns: Collection[str]) -> pd.DataFrame | None:
    """Columns of a cell's samples, each of its scores or else of its outcomes, by position in the manifest; None where
    one of them is in neither.
    """
    rows, found = CellFolder(folder).read_scores(), []
    scored = [] if rows is None else [name for name in columns if name in rows]
    if rows is not None and scored:
        found.append(rows.set_index(manifest.get_indexer(rows["id"]))[scored])
    if others := [name for name in columns if name not in scored]:
        samples, damaged = read_samples(folder, manifest, tuple(others))
        if damaged:
            return None
        found.append(samples)
    return pd.concat(found, axis=1)


def _read_cell(folder: CellFolder, run: dict[str, Any], manifest: pd.Index, missing: set[str]) -> Cell | None:
    """The cell, None if it has not been begun. What of it is damaged counts as not there, and fails it."""
    samples, damaged = read_samples(folder.path, manifest, ("prediction",))

    def read(what: Callable[[], Any]) -> Any:
        try:
            return what()
        except DamagedError as error:
            damaged.append(str(error))
            return None

    found = {name: read(partial(folder.read, name)) for name in ("cell", "flops", "kernels", "scores")}
    timings = {name: (read(partial(folder.read, name)) or {}).get("runtimes", {}) for name in TIMINGS}
    elsewhere = (read(partial(folder.read, "elsewhere")) or {}).get("devices", {})
    failed, about = read(partial(folder.read, "failed")), found.pop("cell")
    if read(folder.read_scores) is None and (found["scores"] or {}).get("per_sample"):
        damaged.append(str(DamagedError(folder.path / "scores.parquet", "it is not there")))
    if about is None:
        if not damaged and not any([*found.values(), *timings.values()]) and samples.empty:
            return None
        damaged = damaged or [str(DamagedError(folder.path / "cell.json", "it is not there"))]
        about = _read_slot(folder.path.name, run)
    unscored = manifest.delete(samples.index.to_numpy())
    return Cell(
        key=folder.path.name,
        about=about,
        **found,
        timings=timings,
        elsewhere=elsewhere,
        failed=failed,
        samples=samples,
        damaged=damaged,
        missing=int(unscored.isin(missing).sum()),
        expected=len(manifest),
    )


def _read_slot(key: str, run: dict[str, Any]) -> dict[str, Any]:
    """What run.json still says of a cell whose own description is lost."""
    reducer, options, rate, *_ = json.loads(run.get("slots", {}).get(key, '["?", {}, ""]'))
    unknown = {"batch_size": 0, **dict.fromkeys(("task", "model", "weights", "weights_kind", "precision"), "?")}
    said = {name: value for name, value in run["spec"].items() if name in (*unknown, "image_size")}
    return {**unknown, **said, "reducer": reducer, "options": options, "rate": rate}
