"""The rows that a task makes scores of: those of a cell, and beside them what it asks for of the unreduced model's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import pandas as pd

from suite.contract.baseline import BASELINE
from suite.models.weights_file import file_sha256
from suite.store.shards import Shards
from suite.sweep.lane import StoredCell


def digest_outcomes(shards: Shards) -> str:
    """What changes whenever the outcomes of a complete cell do."""
    return "".join(file_sha256(shards.files.path(name)) for name in shards.joined())


class Unreduced:
    """Columns of the unreduced model's outcomes, where that is among the cells of a run."""

    def __init__(self, columns: Sequence[str], cells: Sequence[StoredCell]) -> None:
        found = [cell.folder.shards for cell in cells if cell.about["reducer"] == BASELINE] if columns else []
        self.columns, self.shards = columns, found[0] if found else None

    @property
    def digest(self) -> str:
        """Of its outcomes, '' where none are asked for or there."""
        return digest_outcomes(self.shards) if self.shards else ""

    @cached_property
    def rows(self) -> pd.DataFrame:
        there = self.shards is not None and self.shards.joined()
        return self.shards.outcomes() if self.shards and there else pd.DataFrame(columns=["id", *self.columns])

    def beside(self, rows: pd.DataFrame) -> pd.DataFrame:
        """A cell's rows with these columns, see `join_unreduced`."""
        return join_unreduced(rows, self.rows, self.columns) if self.columns else rows


def join_unreduced(rows: pd.DataFrame, unreduced: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Rows with `unreduced_NAME` of every column, null for samples that the unreduced model has no row of."""
    return rows.join(unreduced.set_index("id")[list(columns)].add_prefix("unreduced_"), on="id")


class Outcomes(Mapping[str, pd.DataFrame]):
    """The rows of complete cells by their keys, each read when it is asked for: those of all cells are many."""

    def __init__(self, cells: Sequence[StoredCell], unreduced: Unreduced) -> None:
        self.shards, self.unreduced = {cell.key: cell.folder.shards for cell in cells}, unreduced

    def __getitem__(self, key: str) -> pd.DataFrame:
        return self.unreduced.beside(self.shards[key].outcomes())

    def __iter__(self) -> Iterator[str]:
        return iter(self.shards)

    def __len__(self) -> int:
        return len(self.shards)
