"""Per-sample outcomes: one Parquet file a batch while a cell runs, one file when it is complete."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from suite.store.files import atomic_path


class Shards:
    """The outcomes of the cell in `folder`. Names depend on the batch alone, so two writers write the same files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder / "samples", folder / "samples.parquet"

    def batch_path(self, batch: int) -> Path:
        return self.folder / f"batch-{batch:05d}.parquet"

    def write(self, batch: int, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
        write_rows(self.batch_path(batch), pa.Table.from_pylist(list(rows), schema=schema))

    def outcomes(self) -> pd.DataFrame:
        """All rows of a complete cell."""
        return read_rows(self.whole).to_pandas()

    def missing(self, batches: Sequence[Sequence[str]]) -> list[int]:
        """Numbers of the batches (lists of ids) that are not stored with all their ids."""
        if self.whole.exists():
            stored = set(read_ids(self.whole))
            return [number for number, ids in enumerate(batches) if not stored.issuperset(ids)]
        absent = []
        for number, ids in enumerate(batches):
            path = self.batch_path(number)
            if not path.exists() or read_ids(path) != list(ids):
                absent.append(number)
        return absent

    def compact(self, batches: Sequence[Sequence[str]]) -> None:
        """Join all batches, in order, into one file. Written before anything is removed; safe to repeat.

        Another process may be doing the same: what it removed in the meantime stands in the joined file already.
        """
        paths = [path for number in range(len(batches)) if (path := self.batch_path(number)).exists()]
        tables = []
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                tables.append(read_rows(path))
        if not tables:
            return
        table = pa.concat_tables(tables)
        if read_ids(self.whole):  # batches that were run again after a repair join those of the earlier run
            table = merged(read_rows(self.whole), table, batches)
        write_rows(self.whole, table)
        for path in paths:
            path.unlink(missing_ok=True)


def merged(old: pa.Table, new: pa.Table, batches: Sequence[Sequence[str]]) -> pa.Table:
    """Rows of both in the order of the samples; where both have one, the new."""
    rows = {row["id"]: row for table in (old, new) for row in table.to_pylist()}
    return pa.Table.from_pylist([rows[id] for ids in batches for id in ids if id in rows], schema=new.schema)


def write_rows(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard. ParquetFile, because read_table takes a folder above it named 'r=13' for a partition column."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns))


def read_ids(path: Path) -> list[str]:
    """The ids in a shard; none if the file cannot be read, so that its batch is run again."""
    try:
        return read_rows(path, ["id"])["id"].to_pylist()
    except (OSError, pa.ArrowException):
        return []
