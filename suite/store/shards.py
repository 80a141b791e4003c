"""Rows of samples: frames of the run's logs while they are made, one file a stream when all are there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from suite.store.log import Logs, read_frames
from suite.store.sealed import DamagedError, SealedFiles, set_aside

SUPPORT = "support.parquet"


class Shards:
    """The rows of the stream `name`, below a folder of files: `name`.parquet, beside it support.parquet where samples
    are scored by others, and what is not joined into them yet, in frames of `logs`, and in `name`/batch-*.parquet where
    an earlier version was stopped.

    What two processes have both made is there twice, alike, and counts once.
    """

    def __init__(self, files: SealedFiles, name: str, logs: Logs) -> None:
        self.files, self.stream, self.logs, self.whole = files, name, logs, f"{name}.parquet"
        self.support = str(PurePosixPath(name).with_name(SUPPORT))

    def names(self) -> Iterator[str]:
        """The files that are there, that of all rows first."""
        yield from self.joined()
        folder = self.files.path(self.stream)
        yield from (str(PurePosixPath(self.stream, path.name)) for path in sorted(folder.glob("batch-*.parquet")))

    def read_logged(self, columns: Sequence[str] | None = None) -> list[pa.Table]:
        """The rows that are in logs, a table a batch. To miss none, read these before the files: they go there."""
        return read_frames(self.logs.frames(self.stream), columns)

    def read_all(self) -> list[pa.Table]:
        """All rows that are stored, some of them twice: those in logs and batches first. DamagedError for a file."""
        return [*self.read_logged(), *map(self.files.read_rows, reversed(list(self.names())))]

    def outcomes(self) -> pd.DataFrame:
        """All rows of a complete cell, those of its support last."""
        return pa.concat_tables(map(self.files.read_rows, self.joined())).to_pandas()

    def joined(self) -> list[str]:
        """The files that rows are joined into, of those that are there."""
        return [name for name in (self.whole, self.support) if self.files.exists(name)]

    def missing(self, batches: Sequence[Sequence[str]]) -> list[int]:
        """Numbers of the batches (lists of ids) that are not stored with all their ids."""
        tables = self.read_logged(["id"])
        tables += [table for name in self.names() if (table := self._read_or_none(name, ["id"])) is not None]
        if not tables:
            return [number for number, ids in enumerate(batches) if ids]
        stored = pa.concat_tables(tables)["id"]
        wanted = pa.array(chain.from_iterable(batches), pa.string())
        if stored.equals(pa.chunked_array([wanted])):
            return []
        found = set(stored.to_pylist())
        return [number for number, ids in enumerate(batches) if not found.issuperset(ids)]

    def compact(self, ids: Sequence[str], support: Sequence[str] = ()) -> None:
        """Join all rows of the samples `ids` into one file, in their order, and those of their support; safe to repeat.

        Of rows that are there twice, those in logs and batches count: they were run again after a repair.
        """
        names = [name for name in self.names() if name not in (self.whole, self.support)]
        if not names and not self.logs.frames(self.stream):
            return
        if tables := self.read_all():  # else another process has joined them in the meantime
            joined = pa.concat_tables(tables)
            for name, of in ((self.support, support), (self.whole, ids)):
                if of:
                    self.files.write_rows(name, in_order(joined, of))
        for name in names:
            self.files.remove(name)

    def take_over(self, earlier: Shards) -> None:
        """The rows of a complete cell on some of the samples, where there are none yet."""
        if earlier.files.exists(earlier.whole) and next(self.names(), None) is None:
            for name, theirs in ((self.support, earlier.support), (self.whole, earlier.whole)):
                if earlier.files.exists(theirs):
                    self.files.write_rows(name, earlier.files.read_rows(theirs))

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

    def read_ids(self) -> set[str]:
        """The samples that have rows; what is damaged has none, so that it is run again."""
        tables = [*self.read_logged(["id"]), *(self._read_or_none(name, ["id"]) for name in self.names())]
        return set(chain.from_iterable(table["id"].to_pylist() for table in tables if table is not None))

    def _read_or_none(self, name: str, columns: Sequence[str]) -> pa.Table | None:
        try:
            return self.files.read_rows(name, columns)
        except (FileNotFoundError, DamagedError):
            return None


def in_order(table: pa.Table, ids: Sequence[str]) -> pa.Table:
    """The first row of each of `ids` that has one, in their order."""
    places = pc.index_in(pa.array(ids, pa.string()), value_set=table["id"].combine_chunks())
    return table.take(places.drop_null())
