"""Methods by runtimes: what a method gains in each, and where methods change places from one to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import pandas as pd

from reports.tables.columns import RATE, reducer_column
from reports.text.markup import markdown_row, markdown_rule
from reports.text.wording import NO_DATA, known, significant

UNSAID = ("", "–", NO_DATA)
MOST = 12
"""Changes of places that are told one by one."""


@dataclass(frozen=True)
class Grid:
    """names: of the rows, in their order. speedup, im_s: by (name, runtime); no entry where nothing was timed."""

    names: list[str]
    runtimes: list[str]
    speedup: dict[tuple[str, str], float]
    im_s: dict[tuple[str, str], float]

    @property
    def several(self) -> bool:
        return len(self.runtimes) > 1


@dataclass(frozen=True)
class Turn:
    """`ahead` is faster than `behind` in runtime `here`, and slower in `there`, both beyond the noise."""

    ahead: str
    behind: str
    here: str
    there: str

    def __str__(self) -> str:
        return f"{self.ahead} is faster than {self.behind} in {self.here} and slower in {self.there}"


def grid_of(rows: Sequence[Any]) -> Grid:
    """rows: of `speeds_of` on one device, with names of their own."""
    if not rows:
        return Grid([], [], {}, {})
    names = names_of(rows)
    at = {(name, row.runtime): row for name, row in zip(names, rows)}
    return Grid(
        list(dict.fromkeys(names)),
        list(dict.fromkeys(row.runtime for row in rows)),
        {key: row.speedup for key, row in at.items() if known(row.speedup)},
        {key: row.im_s for key, row in at.items() if known(row.im_s)},
    )


def names_of(rows: Sequence[Any]) -> list[str]:
    """Of each row: its reducer and rate."""
    reducer = reducer_column(pd.DataFrame(rows))
    return [" ".join(text for text in (reducer.show(row), RATE.show(row)) if text not in UNSAID) for row in rows]


def turns_of(rows: Sequence[Any]) -> list[Turn]:
    """Pairs of methods whose order by speed differs between two runtimes, each by intervals that do not touch."""
    at = {(name, row.runtime): row for name, row in zip(names_of(rows), rows) if known(row.speedup_low)}
    names, runtimes = (list(dict.fromkeys(of)) for of in zip(*at)) if at else ([], [])

    def sooner(a: str, b: str, runtime: str) -> bool:
        first, second = at.get((a, runtime)), at.get((b, runtime))
        return first is not None and second is not None and first.speedup_low > second.speedup_high

    return [
        Turn(a, b, here, there)
        for a, b in permutations(names, 2)
        for here, there in combinations(runtimes, 2)
        if sooner(a, b, here) and sooner(b, a, there)
    ]


def markdown_of(rows: Sequence[Any]) -> list[str]:
    """Lines of the grid and of what changes places; none where there is one runtime."""
    grid = grid_of(rows)
    if not grid.several:
        return []
    lines = [markdown_row(["Speed-up · im/s", *grid.runtimes]), markdown_rule([False, *[True] * len(grid.runtimes)])]
    for name in grid.names:
        lines.append(markdown_row([name, *(cell_of(grid, name, runtime) for runtime in grid.runtimes)]))
    turns = turns_of(rows)
    told = [f"- {turn}." for turn in turns[:MOST]]
    if len(turns) > MOST:
        told.append(f"- {len(turns) - MOST} more pairs change places.")
    return ["", *lines, "", *(told or ["- No two methods change places between these runtimes beyond the noise."])]


def cell_of(grid: Grid, name: str, runtime: str) -> str:
    at = name, runtime
    if at not in grid.speedup or at not in grid.im_s:
        return NO_DATA
    return f"{grid.speedup[at]:.2f} · {significant(grid.im_s[at], 3)}"
