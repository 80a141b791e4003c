"""Token groups of drawn pictures: at some steps of the sampler and in some blocks, a section a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from reports.groups import Group, groups, labels_of
from reports.page.exhibits import CellMaps, Exhibits, read_exhibits
from reports.pictures.picture_sheet import file_name, pictures_of
from reports.pictures.token_sheet import TokenImage, TokenPanel, write_tokens
from reports.text.wording import row_label
from suite.contract.baseline import BASELINE
from suite.store.sealed import DamagedError

ROWS = 2  # blocks of a section: the first and the last of those that are known


def write_step_sheets(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """tokens.png, or one of each group, in `folder`, of runs whose token groups are known step by step; there may be
    none. Of each method at the middle one of its rates, on the first of the samples."""
    parts, files = list(groups(frame)), []
    for old in folder.glob("tokens*.png"):  # of other groups: they would be taken for these
        old.unlink()
    for part, label in zip(parts, labels_of(parts), strict=True):
        exhibits = exhibits_of(part.out)
        if exhibits.frames and (drawn := sections(part, exhibits)):
            steps, blocks = axes_of(exhibits.frames)
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / file_name("tokens", label, len(parts))
            heading = f"{part.model}: what a branch ran on, in the mean colours of the picture that came of it"
            rows = [f"block {blocks[place]}" for place in few(len(blocks))]
            write_tokens(drawn, step_columns(steps, exhibits.steps), rows, heading, file)
            files.append(file)
    return files


def exhibits_of(out: Path) -> Exhibits:
    try:
        return read_exhibits(out)
    except DamagedError:  # the page says so
        return Exhibits()


def sections(part: Group, exhibits: Exhibits) -> list[TokenImage]:
    """One of each method that there are groups and pictures of."""
    found = []
    done = part.frame[(part.frame.status == "done") & (part.frame.reducer != BASELINE)]
    known = done[done.index.isin(list(exhibits.maps))]
    for _, rows in known.groupby(["reducer", "options", "training"], sort=False):
        row = next(rows.iloc[[(len(rows) - 1) // 2]].itertuples())
        maps, key = exhibits.maps[str(row.Index)], str(row.Index)
        for id in list(maps.owners)[:1]:
            picture = pictures_of(part, key, [id]).get(id)
            if picture is not None:
                found.append(section(f"{id}, {row_label(row)}", picture, exhibits.frames, maps, id))
    return found


def section(name: str, picture: np.ndarray, frames: Sequence[tuple[int, int]], maps: CellMaps, id: str) -> TokenImage:
    steps, blocks = axes_of(frames)
    rows = few(len(blocks))
    owners = maps.owners[id].reshape(len(steps), len(blocks), -1)[:, rows]
    tokens = maps.tokens[id][1:].reshape(len(steps), len(blocks))[:, rows]
    return step_image(name, picture, owners, tokens, maps.grid)


def few(count: int) -> list[int]:
    """Places of the blocks that are shown of so many."""
    return sorted({i * (count - 1) // max(1, ROWS - 1) for i in range(ROWS)})


def axes_of(frames: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """The steps and the blocks that all pairs of them are given of."""
    return tuple(list(dict.fromkeys(values)) for values in zip(*frames, strict=True))  # type: ignore[return-value]


def step_columns(steps: Sequence[int], of: int) -> list[tuple[str, ...]]:
    """Titles of the columns of a sheet."""
    return [(f"step {step} of {of}",) for step in steps]


def step_image(
    name: str, picture: np.ndarray, owners: np.ndarray, tokens: np.ndarray, grid: tuple[int, int]
) -> TokenImage:
    """A section of a sheet: the picture (H, W, 3), owners (S, L, P) and tokens (S, L) at its steps and blocks."""
    panels = [
        [TokenPanel(of.reshape(grid), int(count)) for of, count in zip(at, counts, strict=True)]
        for at, counts in zip(owners, tokens, strict=True)
    ]
    return TokenImage(name, picture, panels)
