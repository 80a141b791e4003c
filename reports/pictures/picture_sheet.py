"""Drawn pictures side by side: the same samples down the methods, and beside them how far each is from the unreduced
model's."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from reports.groups import Group, groups, labels_of
from reports.text.wording import known
from suite.contract.baseline import BASELINE
from suite.store.folder import RunFolder

SAMPLES = 8  # of each method, spread over those that all have
GOLDEN = (math.sqrt(5) - 1) / 2
SIDE, LARGEST = 112, 256  # pixels of a picture's shorter side on the sheet, at least and at most
GAP, NAMES = 4, 150  # pixels between pictures, and for the names of methods
LOUDER = 3  # differences are shown so many times as large
PICTURE = "picture"

Rows = Mapping[str, np.ndarray]
"""Pictures (H, W, 3) uint8 by the ids of their samples."""


def write_sheets(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """pictures.png, or one of each group, in `folder`, of runs whose samples have pictures; there may be none."""
    parts, files = list(groups(frame)), []
    for old in folder.glob("pictures*.png"):  # of other groups: they would be taken for these
        old.unlink()
    for part, label in zip(parts, labels_of(parts), strict=True):
        if cells := read_pictures(part):
            file = folder / file_name("pictures", label, len(parts))
            folder.mkdir(parents=True, exist_ok=True)
            draw_sheet(cells).save(file)
            files.append(file)
    return files


def file_name(what: str, label: str, count: int) -> str:
    """Of the sheet of one of so many groups, which is called `label`."""
    return f"{what}.png" if count == 1 else f"{what}_{label.replace('/', '-').replace(' ', '')}.png"


def read_pictures(part: Group) -> dict[str, Rows]:
    """The same few pictures of every finished cell, by its name, the unreduced model's first."""
    tables: dict[str, pd.Series[Any]] = {}
    chosen: list[str] = []
    for row in part.frame[part.frame.status == "done"].itertuples():
        outcomes = RunFolder(part.out).cell(str(row.Index)).shards.outcomes()
        if PICTURE not in outcomes or outcomes.empty:
            return {}
        chosen = chosen or chosen_ids(list(outcomes["id"]))
        few = outcomes[outcomes["id"].isin(chosen)]  # those of all cells could fill the memory
        name = f"{row.reducer} {row.rate}" if known(row.rate) else str(row.reducer)
        tables[name] = few.set_index("id")[PICTURE].copy()
    shared = [id for id in chosen if all(id in table.index for table in tables.values())]
    names = sorted(tables, key=lambda name: name != BASELINE)
    return {name: {id: _pixels(tables[name][id]) for id in shared} for name in names} if shared else {}


def pictures_of(part: Group, key: str, ids: Sequence[str]) -> Rows:
    """Those of a finished cell's samples that have one, by their ids."""
    outcomes = RunFolder(part.out).cell(key).shards.outcomes()
    if PICTURE not in outcomes:
        return {}
    few = outcomes[outcomes["id"].isin(list(ids))]
    return {str(id): _pixels(data) for id, data in zip(few["id"], few[PICTURE], strict=True)}


def chosen_ids(ids: list[str]) -> list[str]:
    """A few, at multiples of the golden section: equal steps meet one colour alone where classes go shape by shape."""
    places = {int((i + 0.5) * GOLDEN % 1 * len(ids)) for i in range(SAMPLES)}
    return [ids[place] for place in sorted(places)]


def draw_sheet(cells: Mapping[str, Rows]) -> Image.Image:
    """One row a cell: its name, its pictures, and their differences from the first cell's, made louder."""
    first, *_ = cells.values()
    ids = list(first)
    height, width = next(iter(first.values())).shape[:2]
    shorter = min(height, width)
    zoom = min(max(1, -(-SIDE // shorter)), LARGEST / shorter)
    shown = round(width * zoom), round(height * zoom)
    how = Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.LANCZOS
    step_x, step_y = shown[0] + GAP, shown[1] + GAP
    head = 30
    sheet = Image.new("RGB", (NAMES + 2 * len(ids) * step_x + 4 * GAP, head + len(cells) * step_y), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, id in enumerate(ids):
        pen.text((NAMES + place * step_x, 8), id[: shown[0] // 7], "black", font)
    pen.text(
        (NAMES + len(ids) * step_x + 4 * GAP, 8), f"difference from {next(iter(cells))}, x {LOUDER}", "black", font
    )
    for line, (name, pictures) in enumerate(cells.items()):
        top = head + line * step_y
        pen.text((GAP, top + step_y // 2 - 8), name, "black", font)
        for place, id in enumerate(ids):
            apart = np.abs(pictures[id].astype(int) - first[id]) * LOUDER
            for offset, pixels in ((0, pictures[id]), (len(ids) * step_x + 4 * GAP, apart.clip(max=255))):
                tile = Image.fromarray(pixels.astype(np.uint8))
                tile = tile.resize(shown, how)
                sheet.paste(tile, (NAMES + offset + place * step_x, top))
    return sheet


def embedded_sheets(folder: Path, what: str = "pictures") -> list[tuple[str, str]]:
    """The sheets of that name in `folder`, for a page: of which group, and data URLs, which lose what nobody sees."""
    found = []
    for path in sorted(folder.glob(f"{what}*.png")):
        file = io.BytesIO()
        Image.open(path).convert("RGB").save(file, "JPEG", quality=85)
        url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        found.append((path.stem.removeprefix(what).lstrip("_"), url))
    return found


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
