"""Token groups as a page holds them: small numbers that a browser draws from, for as many samples as fit."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from reports.page.exhibits import CellMaps, Exhibits
from reports.page.packing import pack_json

BUDGET = 2_500_000  # characters, packed


def packed_tokens(runs: Sequence[tuple[str, Exhibits]], places: dict[str, int], budget: int = BUDGET) -> str:
    """The maps of all cells of each run, (label, exhibits), packed: of as many samples a run as fit; '' for none.

    places: key of a cell -> its place among the page's cells.
    """
    sets = []
    for label, exhibits in runs:
        maps = {places[key]: of for key, of in exhibits.maps.items() if key in places}
        sets += [(label, exhibits, maps)] if maps and exhibits.views else []
    for count in range(max((len(exhibits.views) for _, exhibits, _ in sets), default=0), 0, -1):
        packed = pack_json(
            [{"label": label, **tokens_data(of, maps, list(of.views)[:count])} for label, of, maps in sets]
        )
        if len(packed) <= budget:
            return packed
    return ""


def tokens_data(exhibits: Exhibits, maps: dict[int, CellMaps], ids: list[str]) -> dict[str, Any]:
    framed = {"frames": [f"step {step} of {exhibits.steps}, block {block}" for step, block in exhibits.frames]}
    return {
        **(framed if exhibits.frames else {}),
        "ids": ids,
        "views": [picture_url(exhibits.views[id]) for id in ids],
        "cells": {
            str(place): {
                "grid": of.grid,
                "owners": [changes(of.owners[id]) for id in ids],
                "tokens": [of.tokens[id].tolist() for id in ids],
            }
            for place, of in maps.items()
        },
    }


def changes(owners: np.ndarray) -> list[list[int] | None]:
    """Per block (depth, P) the groups numbered by their first patch; None where they are those of the block before."""
    found: list[list[int] | None] = []
    before = np.arange(owners.shape[1])
    for owner in owners:
        now = in_order(owner)
        found.append(None if np.array_equal(now, before) else now.tolist())
        before = now
    return found


def in_order(owner: np.ndarray) -> np.ndarray:
    """The same groups numbered 0, 1, ... by their first patch; what is in none (below 0) is -1."""
    values, first, number = np.unique(owner, return_index=True, return_inverse=True)
    first = np.where(values < 0, -1, first)  # first of all, whatever it is
    rank = np.argsort(np.argsort(first))
    return np.where(owner < 0, -1, rank[number] - int((values < 0).any()))


def picture_url(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
