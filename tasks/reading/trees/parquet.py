"""Images in rows of Parquet files, as Hugging Face stores them: a struct of `bytes` and `path`."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from suite.errors import RequestError
from tasks.reading.trees.bounds import LARGEST, check_unpacked
from tasks.reading.trees.tree import FileTree, is_visible, normal_name

IMAGE = "image"  # its usual name
KEPT = 2**28  # bytes of row groups that a process keeps, and never less than one
ROWS = 8  # that are decoded at once
SLOW = 2**25  # to read so much takes longer than to decode an image


@dataclass(frozen=True)
class _Shard:
    """rows: numbers in the data set of the first row of each of its row groups, and of the first row after it."""

    path: Path
    stamp: str
    rows: tuple[int, ...]


class ParquetTree(FileTree):
    """One file a row, with the bytes of the row's image. Its name is the image's path, where no other row has that one
    too, else `shard:row`.

    To read a row, its row group is read, of the column of bytes alone; the latest ones are kept, in each process. The
    index reads no image. schema: of all shards. rows: names in the order of the rows.
    """

    def __init__(self, location: Path, shards: Sequence[Path]) -> None:
        self._shards: list[_Shard] = []
        self._opened: dict[int, pq.ParquetFile] = {}
        self._groups: OrderedDict[tuple[int, int], pa.Array] = OrderedDict()
        self._process = os.getpid()
        first = largest = 0
        for path in shards:
            stamp = _stamp_of(path)
            with _damage_named(path), pq.ParquetFile(path) as file:
                if not self._shards:
                    self.schema: pa.Schema = file.schema_arrow
                    self._image = _image_column(self.schema, path)
                elif not file.schema_arrow.equals(self.schema):
                    raise RequestError(
                        f"shard '{path}' has other columns than '{shards[0]}'; use shards of one data set"
                    )
                largest = max(largest, _largest_group(file, self._image, path))
                groups = (file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups))
                rows = tuple(accumulate(groups, initial=first))
            self._shards.append(_Shard(path, stamp, rows))
            first = rows[-1]
        self.rows = list(self._named())
        self._numbers = {name: number for number, name in enumerate(self.rows)}
        super().__init__(location, self.rows, set())
        if largest > SLOW:
            self.notes = (
                f"row groups of up to {largest >> 20} MiB are read whole for every image that is not beside the one "
                "before; with about 100 rows each they are read faster",
            )

    def read_column(self, name: str) -> list[Any]:
        """The values of a column, or of a field `column.field`, in all rows. RequestError for a damaged shard."""
        values: list[Any] = []
        for shard in self._shards:
            with _damage_named(shard.path), pq.ParquetFile(shard.path) as file:
                (column,) = file.read(columns=[name], use_threads=False).itercolumns()
            for field in name.split(".")[1:]:
                column = pc.struct_field(column, field)
            values += column.to_pylist()
        return values

    def _named(self) -> Iterator[str]:
        images = self.schema.field(self._image).type
        paths = self.read_column(f"{self._image}.path") if images.get_field_index("path") >= 0 else []
        known = [normal_name(path) if path else "" for path in paths] or [""] * self._shards[-1].rows[-1]
        times = Counter(known)
        for shard in self._shards:
            for row in range(shard.rows[0], shard.rows[-1]):
                name = known[row]
                own = name and times[name] == 1 and is_visible(name)
                yield name if own else self._address(shard, row)

    def _address(self, shard: _Shard, row: int) -> str:
        return f"{shard.path.name}:{row - shard.rows[0]}"

    def _place(self, row: int) -> int:
        return bisect_right([shard.rows[-1] for shard in self._shards], row)

    def _read(self, name: str) -> bytes:
        row = self._numbers[name]
        place = self._place(row)
        rows = self._shards[place].rows
        group = bisect_right(rows, row) - 1
        data: bytes | None = self._group(place, group)[row - rows[group]].as_py()
        if data is None:
            raise OSError("the row holds no bytes of an image")
        return data

    def _group(self, place: int, group: int) -> pa.Array:
        if self._process != os.getpid():  # what a forked process was given is not its own
            self._opened, self._groups, self._process = {}, OrderedDict(), os.getpid()
        if (place, group) not in self._groups:
            values = self._read_group(place, group)
            while self._groups and sum(kept.nbytes for kept in self._groups.values()) + values.nbytes > KEPT:
                self._groups.popitem(last=False)
            self._groups[place, group] = values
        self._groups.move_to_end((place, group))
        return self._groups[place, group]

    def _read_group(self, place: int, group: int) -> pa.Array:
        """A few rows at a time: a value that a dictionary holds once can come to any number of bytes."""
        parts: list[pa.Array] = []
        batches = self._open(place).iter_batches(ROWS, [group], [f"{self._image}.bytes"], use_threads=False)
        for batch in batches:
            parts.append(pc.struct_field(batch.column(0), "bytes"))
            check_unpacked(sum(part.nbytes for part in parts))
        return pa.concat_arrays(parts)

    def _open(self, place: int) -> pq.ParquetFile:
        if place not in self._opened:
            shard = self._shards[place]
            if _stamp_of(shard.path) != shard.stamp:
                raise OSError("the shard has changed since it was opened")
            self._opened[place] = pq.ParquetFile(shard.path, pre_buffer=False, page_checksum_verification=True)
        return self._opened[place]

    def stamp(self, name: str) -> str:
        """Size and times of the shard, and the row: rows have no checksums of their own."""
        row = self._numbers[name]
        shard = self._shards[self._place(row)]
        return f"{shard.stamp}-{row - shard.rows[0]}"

    def where(self, name: str) -> str:
        if name not in self:
            return super().where(name)
        shard = self._shards[self._place(self._numbers[name])]
        return str(shard.path.parent / self._address(shard, self._numbers[name]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}, "_groups": OrderedDict()}


def _stamp_of(path: Path) -> str:
    about = os.stat(path)
    return f"{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}"


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """RequestError where a shard is no complete Parquet file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"shard '{path}' cannot be read: {reason}; copy or download it again") from error


def _image_column(schema: pa.Schema, path: Path) -> str:
    """The column of images: the one of that name, or the only one."""
    found = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and (place := field.type.get_field_index("bytes")) >= 0
        and (pa.types.is_binary(kind := field.type.field(place).type) or pa.types.is_large_binary(kind))
    ]
    if IMAGE in found or len(found) == 1:
        return IMAGE if IMAGE in found else found[0]
    what = f"several columns of images: {', '.join(found)}" if found else "no column of images, a struct with 'bytes'"
    raise RequestError(f"'{path}' has {what}, among {', '.join(schema.names)}; write one, named '{IMAGE}'")


def _largest_group(file: pq.ParquetFile, image: str, path: Path) -> int:
    """Bytes of the images of the largest row group. RequestError where no process could keep them."""
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    sizes = (column.total_uncompressed_size for column in columns if column.path_in_schema == f"{image}.bytes")
    largest: int = max(sizes, default=0)
    if largest > LARGEST:
        raise RequestError(
            f"'{path}' has a row group of {largest / 2**30:.1f} GiB of images, all of which must be read for one; "
            "write it again with row groups of about 100 rows"
        )
    return largest
