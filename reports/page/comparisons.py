"""What a page compares sample by sample: a set of cells for all that was run on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reports.groups import Group
from reports.page.exhibits import Exhibits
from reports.page.opening import Compared, opening_of
from reports.page.outcomes import Outcomes, load_outcomes, same_samples
from reports.page.packing import pack_json
from reports.page.pairs import compare_pairs
from reports.page.samples import comparison_data, packed_samples
from reports.page.tokens import picture_url
from reports.text.wording import is_untrained
from suite.contract.baseline import BASELINE

MIDDLE = -0.5  # change of FLOPs near which methods are compared first
PICTURES = 4_000_000  # bytes of all pictures of a set: more than one run has


def comparisons(
    parts: Sequence[Group], exhibits: Mapping[Path, Exhibits], places: dict[str, int]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The sets, and by the names of their blobs, packed, the samples and pictures of each: 'samples0', 'pictures0', ...

    exhibits: by the folders of runs. places: key of a cell -> its place among the page's cells.
    """
    found: list[dict[str, Any]] = []
    blobs = {}
    for of in same_samples(parts):
        if (outcomes := load_outcomes(of)) is None:
            continue
        pairs = compare_pairs(outcomes)
        data = comparison_data(outcomes, pairs, places)
        data["opening"] = [" ".join(said) for part in of if (said := opening_of(Compared(part, outcomes, pairs)))]
        blobs[f"samples{len(found)}"], data["kept"] = packed_samples(outcomes)
        blobs[f"pictures{len(found)}"] = _pictures(outcomes, [exhibits[part.out] for part in of])
        data["classes"] = exhibits[of[0].out].classes
        data["first"] = first_pair(of[0], outcomes.keys, places)
        data["title"] = f"{of[0].task} ({data['label']}, n = {data['n']})"
        found.append(data)
    return found, blobs


def first_pair(part: Group, keys: Sequence[str], places: dict[str, int]) -> list[int] | None:
    """The cells of a group to compare first: the two best methods at about half of the FLOPs, one cell of each."""
    frame, wanted = part.frame, set(keys)
    shown = frame.loc[[key for key in frame.index if key in wanted]]
    reduced = shown[(shown.reducer != BASELINE) & shown.reduction.notna()]
    fair: pd.DataFrame = reduced[~reduced.training.map(is_untrained).astype(bool)]
    reduced = fair if fair.reducer.nunique() > 1 else reduced
    near = (reduced.reduction - MIDDLE).abs().sort_values(kind="stable")
    nearest = reduced.loc[near.index].drop_duplicates("reducer")
    best = nearest.sort_values(part.headline.name, ascending=False, kind="stable").index.to_list()
    chosen = [*best, *[key for key in shown.index if key not in best]][:2]
    return [places[key] for key in chosen] if len(chosen) == 2 else None


def _pictures(outcomes: Outcomes, exhibits: Sequence[Exhibits]) -> str:
    """Pictures of the set's samples, those on which cells differ most first, as far as there is room; '' for none."""
    known = {id: jpeg for of in reversed(exhibits) for id, jpeg in of.thumbnails.items()}
    ids = [outcomes.ids[i] for i in (-outcomes.interest).argsort(kind="stable")]
    pictures, room = {}, PICTURES
    for id in (id for id in ids if id in known):
        room -= len(known[id])
        if room < 0:
            break
        pictures[id] = picture_url(known[id])
    return pack_json(pictures) if pictures else ""
