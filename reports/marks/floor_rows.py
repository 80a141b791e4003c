"""Floors of other runs, as rows of the table and points of the figure of the model that they are floors of.

A smaller model is a run of its own, and so are images that are decoded smaller: they are other images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from reports.groups import Group
from reports.order import method_order, rate_order
from reports.page.outcomes import same_samples
from reports.pareto.style import UNREDUCED
from suite.contract.baseline import BASELINE

DECODED = "resize", json.dumps({"mode": "decode"})
"""Reducer and options that a table says of the unreduced model on images that were decoded at a smaller side."""


def hosted(parts: Sequence[Group], once: bool = False) -> list[Group]:
    """The groups, with the floors of other runs among their rows; what is only a floor has no table of its own.

    Groups of an unreduced model alone are floors of those with reducers on the same samples at the same precision: a
    smaller image of the same model, or another model. Against the host, FLOPs can be compared; speed-up and agreement
    were measured against their own model and are n/a. once: only the first of several hosts shows a floor.
    """
    if len(parts) < 2:
        return [*parts]
    beside = {id(part): alike for alike in same_samples(parts) for part in alike}
    found, taken = [], set[int]()
    for part in parts:
        floors = [] if _is_plain(part) else [one for one in beside[id(part)] if _is_floor(one, part)]
        floors = [one for one in floors if not (once and id(one) in taken)]
        found.append(_with(part, floors) if floors else part)
        taken |= set(map(id, floors))
    return [shown for part, shown in zip(parts, found, strict=True) if id(part) not in taken]


def decoded_rate(side: int | None) -> str:
    return f"side={side}"


def _is_plain(part: Group) -> bool:
    return bool((part.frame.reducer == BASELINE).all())


def _is_floor(part: Group, host: Group) -> bool:
    if not _is_plain(part) or part.precision != host.precision or part.random_weights:  # agreement is with its own
        return False
    return part.model != host.model or (part.weights == host.weights and part.image_size not in (None, host.image_size))


def _with(host: Group, floors: Sequence[Group]) -> Group:
    """The host with the rows of floors, in the order that tables have."""
    parts = [host.frame, *(_rows_beside(floor, host) for floor in floors)]
    context = [about for part in (host, *floors) for about in part.context]
    rows = pd.concat(parts)
    order = sorted(range(len(rows)), key=[*_keys(rows)].__getitem__)
    frame = rows.iloc[order]
    frame.attrs.update(host.frame.attrs)
    return replace(host, frame=frame, context=[context[place] for place in order])


def _keys(rows: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    for row in rows.itertuples():
        yield (*method_order(row.reducer, row.options, row.training), *rate_order(row.rate or "", row.gmacs))


def _rows_beside(floor: Group, host: Group) -> pd.DataFrame:
    rows = floor.frame.copy()
    full = host.frame.gmacs[host.frame.reducer == BASELINE]
    against_own = [name for name in rows if "speedup" in name or name.startswith("agreement")]
    rows[against_own] = np.nan
    rows["reduction"] = rows.gmacs / next(iter(full), np.nan) - 1
    if floor.model == host.model:
        rows["reducer"], rows["options"] = DECODED
        rows["rate"] = rows["resolved_rate"] = decoded_rate(floor.image_size)
    else:
        rows["reducer"] = floor.model + UNREDUCED
    return rows
