"""Repair of a run's folder: what is damaged is set aside, for what is not there is made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import pyarrow as pa

from suite.store.folder import RunFolder
from suite.store.schema import CELL_FILES, CONTENTS
from suite.store.sealed import DamagedError
from suite.store.shards import Shards


def set_aside_damaged(folder: RunFolder, cells: Sequence[str], outcomes: pa.Schema) -> list[str]:
    """Read what is stored of a run and of some of its cells; a sentence on every file that was set aside.

    outcomes: the columns that the cells' samples have.
    """
    notes = []
    for read in _reads(folder, cells, outcomes):
        try:
            with suppress(FileNotFoundError):  # another process has joined the batches in the meantime
                read()
        except DamagedError as error:
            notes.append(error.put_aside())
    return notes


def _reads(folder: RunFolder, cells: Sequence[str], outcomes: pa.Schema) -> Iterator[Callable[[], object]]:
    yield from (folder.read_environment, folder.read_ids, folder.read_missing)
    yield from _of_shards(folder.contents, CONTENTS)
    for cell in map(folder.cell, cells):
        yield from (partial(cell.read, name) for name in CELL_FILES)
        yield cell.read_scores
        yield from _of_shards(cell.shards, outcomes)


def _of_shards(shards: Shards, schema: pa.Schema) -> Iterator[Callable[[], object]]:
    for name in list(shards.names()):
        yield partial(_read_rows, shards, name, schema)


def _read_rows(shards: Shards, name: str, schema: pa.Schema) -> None:
    table = shards.files.read_rows(name, schema.names)
    for field in schema:
        found = table.schema.field(field.name).type
        if found != field.type:
            raise DamagedError(shards.files.path(name), f"column {field.name} is of {found}, not {field.type}")
