"""One cell of several runs: the same outcomes once, batches that complete each other joined, all else a conflict."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from suite.errors import RequestError
from suite.store.files import atomic_path
from suite.store.folder import CellFolder
from suite.store.merging.agreement import Source
from suite.store.schema import CELL_FILES
from suite.store.shards import in_order

OUTCOMES = ("samples.parquet", "support.parquet", "scores.json", "scores.parquet", "accuracy.json")
"""Files of a complete cell that belong together: scores say of which file they were made."""
ABOUT = ("cell", "flops", "kernels", "accuracy")
"""Of the others, those that do not depend on how far a cell has come."""


@dataclass(frozen=True)
class Held:
    """A cell as a run holds it. ids: the samples that it should have."""

    source: Source
    key: str
    ids: Sequence[str]

    @cached_property
    def folder(self) -> CellFolder:
        return self.source.folder.cell(self.key)

    @cached_property
    def rows(self) -> pa.Table | None:
        """Its outcomes in the order of the samples; None where there are none."""
        tables = self.folder.shards.read_all()
        return in_order(pa.concat_tables(tables), self.ids) if tables else None

    @property
    def count(self) -> int:
        return 0 if self.rows is None else len(self.rows)

    @cached_property
    def is_whole(self) -> bool:
        """Whether all of its outcomes are there, in their file."""
        if self.rows is None or not self.folder.files.exists(self.folder.shards.whole):
            return False
        missing = {record["id"] for record in self.source.folder.read_missing()}
        return len(self.rows) == len(self.ids) - len(missing.difference(self.rows["id"].to_pylist()))

    @cached_property
    def flops(self) -> dict[str, Any] | None:
        return self.folder.read("flops")

    @cached_property
    def name(self) -> str:
        about = self.folder.read("cell") or {"reducer": f"cell {self.key}", "rate": ""}
        return " ".join(filter(None, (about["reducer"], about["rate"])))


def choose(held: Sequence[Held], preferred: Source | None) -> list[Held]:
    """Those of the holders of one cell that agree, the one first whose outcomes are taken.

    RequestError for two that do not, unless one of them is of the run that is preferred; it is then taken alone.
    """
    joined = held[0].rows
    for other in held[1:]:
        if why := conflict(held[0], joined, other):
            mine = [one for one in held if one.source is preferred]
            if mine:
                return mine
            raise RequestError(
                f"{other.name}: {why} in {held[0].source.name} and {other.source.name}; say whose is taken: --prefer "
                f"{held[0].source.name}"
            )
        joined = join_rows(joined, other.rows)
    first = max(held, key=lambda one: (one.is_whole, one.count, one.folder.scores() is not None))
    return [first, *(one for one in held if one is not first)]


def conflict(first: Held, joined: pa.Table | None, other: Held) -> str:
    """In what `other` differs from a cell with the rows `joined`; '' where it is the same cell."""
    if joined is not None and other.rows is not None and (sample := first_difference(joined, other.rows)) is not None:
        return f"sample {sample!r} has another outcome"
    if first.flops and other.flops and first.flops["total"] != other.flops["total"]:
        return f"FLOPs are {first.flops['total']:g} and {other.flops['total']:g}"
    if first.key != other.key and not (first.is_whole and other.is_whole):
        return "not all outcomes are there to be compared, and code, weights or circumstances are not the same"
    return ""


def first_difference(one: pa.Table, two: pa.Table) -> str | None:
    """The first sample that both have, with another row; None where all of these are equal."""
    common = set(one["id"].to_pylist()).intersection(two["id"].to_pylist())
    ids = [id for id in one["id"].to_pylist() if id in common]
    one, two = (in_order(table, ids) for table in (one, two))
    if one.equals(two):
        return None
    pairs = zip(one.to_pylist(), two.to_pylist(), strict=True)
    return next((a["id"] for a, b in pairs if repr(a) != repr(b)), None)  # NaN is not equal to itself


def join_rows(one: pa.Table | None, two: pa.Table | None) -> pa.Table | None:
    return pa.concat_tables([one, two]) if one is not None and two is not None else one if two is None else two


def write_cell(held: Sequence[Held], into: CellFolder) -> None:
    """The cell that holders agree in (see `choose`), but for its timings; its files as they are, where they can be."""
    first, alike = held[0], [one for one in held if one.key == held[0].key]
    for one in alike:
        check(one.folder)
    names = {f"{name}.json": [one for one in alike if one.folder.read(name) is not None] for name in ABOUT}
    if first.is_whole:
        names |= {name: [first] for name in OUTCOMES}
    elif rows := [one.rows for one in alike if one.rows is not None]:
        into.files.write_rows(into.shards.whole, in_order(pa.concat_tables(rows), first.ids))
    if all(one.folder.read("failed") is not None for one in held):
        names["failed.json"] = [first]
    for name, holders in names.items():
        if holders and (path := holders[0].folder.path / name).exists():
            with atomic_path(into.path / name) as temporary:
                shutil.copyfile(path, temporary)


def check(cell: CellFolder) -> None:
    """DamagedError for a file that is not what was written."""
    for name in CELL_FILES:
        cell.read(name)
    cell.read_scores()


def write_circumstances(into: CellFolder, source: Source, identity: dict[str, Any], weights: str | None) -> None:
    """In cell.json, what of the run's identity is otherwise than where the cell was made.

    weights: what the file of the model's weights, which is the same, is called in all cells.
    """
    about = into.read("cell")
    if about is None:
        return
    made = {**source.identity, **about.get("circumstances", {})}
    differing = {name: made.get(name) for name in identity if name != "data" and made.get(name) != identity[name]}
    changed = {**about, "weights": weights or about["weights"], "circumstances": differing}
    if changed != {"circumstances": {}, **about}:
        into.write("cell", changed)
