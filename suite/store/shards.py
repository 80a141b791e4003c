"""Rows of samples: one Parquet file a batch while they are made, one file when all are there."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from suite.store.sealed import DamagedError, SealedFiles, set_aside


class Shards:
    """The rows `name` below a folder of `files`: `name`/batch-*.parquet, then `name`.parquet.

    Names depend on the batch alone, so two writers write the same files.
    """

    def __init__(self, files: SealedFiles, name: str) -> None:
        self.files, self.folder, self.whole = files, name, f"{name}.parquet"

    def batch(self, number: int) -> str:
        return f"{self.folder}/batch-{number:05d}.parquet"

    def names(self) -> Iterator[str]:
        """The files that are there, that of all rows first."""
        if self.files.exists(self.whole):
            yield self.whole
        folder = self.files.path(self.folder)
        yield from (str(PurePosixPath(self.folder, path.name)) for path in sorted(folder.glob("batch-*.parquet")))

    def write(self, number: int, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
        self.files.write_rows(self.batch(number), pa.Table.from_pylist(list(rows), schema=schema))

    def outcomes(self) -> pd.DataFrame:
        """All rows of a complete cell."""
        return self.files.read_rows(self.whole).to_pandas()

    def missing(self, batches: Sequence[Sequence[str]]) -> list[int]:
        """Numbers of the batches (lists of ids) that are not stored with all their ids."""
        stored = set(self.read_ids(self.whole))
        return [
            number
            for number, ids in enumerate(batches)
            if not stored.issuperset(ids) and self.read_ids(self.batch(number)) != list(ids)
        ]

    def compact(self, batches: Sequence[Sequence[str]]) -> None:
        """Join all batches, in order, into one file. Written before anything is removed; safe to repeat.

        Another process may be doing the same: what it removed in the meantime stands in the joined file already.
        """
        names = [name for number in range(len(batches)) if self.files.exists(name := self.batch(number))]
        tables = []
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                tables.append(self.files.read_rows(name))
        if not tables:
            return
        table = pa.concat_tables(tables)
        if self.read_ids(self.whole):  # batches that were run again after a repair join those of the earlier run
            table = merged(self.files.read_rows(self.whole), table, batches)
        self.files.write_rows(self.whole, table)
        for name in names:
            self.files.remove(name)

    def take_over(self, earlier: Shards) -> None:
        """The rows of a complete cell on some of the samples, where there are none yet."""
        if earlier.files.exists(earlier.whole) and next(self.names(), None) is None:
            self.files.write_rows(self.whole, earlier.files.read_rows(earlier.whole))

    def replace(self, names: Sequence[str], rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
        """Put `rows` in one file, in the place of the files `names`."""
        self.files.write_rows(self.whole, pa.Table.from_pylist(list(rows), schema=schema))
        for name in names:
            if name != self.whole:
                self.files.remove(name)

    def forget(self, ids: Collection[str]) -> bool:
        """Take out the rows of some samples, as if they had never been made; False if there are none. The files that
        held them are set aside."""
        found = False
        for name in list(self.names()):
            table = self.files.read_rows(name)
            kept = table.filter(pc.invert(pc.is_in(table["id"], pa.array(ids, pa.string()))))
            if len(kept) < len(table):
                found = True
                set_aside(self.files.path(name), "changed")
                if len(kept):
                    self.files.write_rows(name, kept)
        return found

    def read_ids(self, name: str) -> list[str]:
        """The ids in a file; none if it is not there or damaged, so that its batch is run again."""
        try:
            ids: list[str] = self.files.read_rows(name, ["id"])["id"].to_pylist()
            return ids
        except (FileNotFoundError, DamagedError):
            return []


def merged(old: pa.Table, new: pa.Table, batches: Sequence[Sequence[str]]) -> pa.Table:
    """Rows of both in the order of the samples; where both have one, the new."""
    rows = {row["id"]: row for table in (old, new) for row in table.to_pylist()}
    return pa.Table.from_pylist([rows[id] for ids in batches for id in ids if id in rows], schema=new.schema)
