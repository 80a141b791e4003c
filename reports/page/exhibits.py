"""Pictures and token maps for a page: kept in the run's folder, so that a page is written from the folder alone.

They need the task's data and the model; whoever has both makes them (`Exhibits.save`), and a page without them says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import pyarrow as pa
from typing_extensions import TypedDict

from suite.contract.program import PROGRAM
from suite.store.sealed import DamagedError, SealedFiles

NOT_MADE = f"pictures and token maps are not made yet; run `{PROGRAM} report` on this folder"


@dataclass(frozen=True)
class CellMaps:
    """What a cell made of the patches of some images.

    owners: sample id -> (depth, P) int32, the group of each patch after each block, -1: of none. tokens: sample id ->
    (depth + 1,) tokens that enter the first block and leave each, prefix included. grid: rows and columns of patches.
    Of pictures that are drawn: at each of `Exhibits.frames` in place of the blocks.
    """

    grid: tuple[int, int]
    owners: dict[str, np.ndarray]
    tokens: dict[str, np.ndarray]


@dataclass
class Exhibits:
    """classes: names of the labels, if they have any. thumbnails, views: sample id -> JPEG, views being what the model
    sees, or drew without reduction, of the samples whose tokens are shown. maps: by the cells' keys. frames: of drawn
    pictures, (step, block) of each map of a cell, from 1, in place of the blocks in turn; steps: how many there are in
    all. missing: what could not be made -> why.
    """

    classes: list[str] = field(default_factory=list)
    thumbnails: dict[str, bytes] = field(default_factory=dict)
    views: dict[str, bytes] = field(default_factory=dict)
    maps: dict[str, CellMaps] = field(default_factory=dict)
    frames: list[tuple[int, int]] = field(default_factory=list)
    steps: int = 0
    missing: dict[str, str] = field(default_factory=dict)

    def save(self, out: Path) -> None:
        files = _files(out)
        files.write_rows("thumbnails.parquet", _pictures(self.thumbnails))
        files.write_rows("views.parquet", _pictures(self.views))
        for key, maps in self.maps.items():
            files.write_rows(f"tokens/{key}.parquet", _table(maps))
        about = {"classes": self.classes, "missing": self.missing}
        drawn = {"frames": self.frames, "steps": self.steps} if self.frames else {}
        files.write_json("about.json", about | drawn)


class AboutFile(TypedDict):
    """exhibits/about.json, as `Exhibits` names its fields"""

    classes: list[str]
    missing: dict[str, str]
    frames: NotRequired[list[list[int]]]  # of runs that draw pictures
    steps: NotRequired[int]


def read_exhibits(out: Path) -> Exhibits:
    """What was saved of a run; nothing, and why, where nothing was. DamagedError for what cannot be believed."""
    files = _files(out)
    about = files.read_json("about.json", AboutFile)
    if about is None:
        return Exhibits(missing={"pictures": NOT_MADE})
    thumbnails, views = (_read_pictures(files, f"{name}.parquet") for name in ("thumbnails", "views"))
    names = sorted(path.name for path in files.path("tokens").glob("*.parquet"))
    maps = {name.removesuffix(".parquet"): _read_maps(files, f"tokens/{name}") for name in names}
    maps = {key: of for key, of in maps.items() if set(of.owners) >= set(views)}  # of other samples: an older choice
    frames = [(step, block) for step, block in about.get("frames", ())]
    if frames:  # maps of other steps or blocks: an older choice
        maps = {key: of for key, of in maps.items() if all(len(owners) == len(frames) for owners in of.owners.values())}
    return Exhibits(about["classes"], thumbnails, views, maps, frames, about.get("steps", 0), about["missing"])


def _files(out: Path) -> SealedFiles:
    return SealedFiles(out / "exhibits")


def _read_pictures(files: SealedFiles, name: str) -> dict[str, bytes]:
    if not files.exists(name):
        return {}
    rows = files.read_rows(name, ["id", "jpeg"]).to_pydict()
    return dict(zip(rows["id"], rows["jpeg"], strict=True))


def _pictures(pictures: dict[str, bytes]) -> pa.Table:
    return pa.table({"id": pa.array(list(pictures), pa.string()), "jpeg": pa.array(pictures.values(), pa.binary())})


def _table(maps: CellMaps) -> pa.Table:
    rows = [
        {"id": id, "block": block, "rows": maps.grid[0], "tokens": int(maps.tokens[id][block]), "owner": owner.tolist()}
        for id, owners in maps.owners.items()
        for block, owner in enumerate([np.arange(owners.shape[1]), *owners])
    ]
    return pa.Table.from_pylist(rows)


def _read_maps(files: SealedFiles, name: str) -> CellMaps:
    rows = files.read_rows(name, ["id", "block", "rows", "tokens", "owner"]).to_pylist()
    try:
        return _maps(rows)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:  # columns of that name, and other content
        raise DamagedError(files.path(name), f"it holds no token groups: {error}") from error


def _maps(rows: list[dict[str, Any]]) -> CellMaps:
    owners: dict[str, list[list[int]]] = {}
    tokens: dict[str, list[int]] = {}
    for row in rows:
        owners.setdefault(row["id"], []).append(row["owner"])
        tokens.setdefault(row["id"], []).append(row["tokens"])
    grid = (rows[0]["rows"], len(rows[0]["owner"]) // rows[0]["rows"])
    return CellMaps(
        grid,
        {id: np.array(of[1:], np.int32) for id, of in owners.items()},
        {id: np.array(of) for id, of in tokens.items()},
    )
