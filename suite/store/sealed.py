"""Files that carry a checksum: one that is damaged is found when it is read, and is never believed.

The checksum is of the content and of the file's name in its folder, so that files that have changed places are found,
too. It stands where other readers pass over it: as "checksum" in a JSON object and in every line of a JSONL file, and
between the data and the footer of a Parquet file. A file without one was written by an earlier version or by hand: it
is taken as it is, provided that it has the right shape.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from suite.errors import RequestError, what_ran_out
from suite.store.files import atomic_path, json_text

Fields = dict[str, Any]
Upgrade = Callable[[Path, Fields], Fields]
KEY, MARK, DIGITS = "checksum", b"reducerbench checksum ", 32
PARQUET_END = 8  # bytes: the length of the footer, and a mark


class DamagedError(RequestError):
    """A stored file cannot be believed. `path` and `reason` say which and why."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, " ".join(reason.split())
        super().__init__(
            f"{path} is damaged ({self.reason}); give the command of the run again: it sets the file aside "
            "and makes it anew"
        )

    def put_aside(self) -> str:
        """Set the file aside, and say so."""
        aside = set_aside(self.path)
        return f"{self.path} is damaged ({self.reason}); set aside as {aside.name}, and made again"


def set_aside(path: Path, why: str = "damaged") -> Path:
    """Give a file another name, `NAME.damaged-1`, so that it counts as not there and nothing is lost."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{why}-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


class SealedFiles:
    """The files of the folder `root` by their names in it, such as 'cells/<key>/flops.json'. All writes are atomic."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name

    def write_json(self, name: str, value: Fields) -> None:
        read = json.loads(json_text(value))  # as it will be: keys that are no text become text
        with atomic_path(self.path(name)) as temporary:
            temporary.write_text(json_text(read | {KEY: _of_json(name, read)}))

    def read_json(self, name: str, shape: Any = dict[str, Any], upgrade: Upgrade | None = None) -> Fields | None:
        """The object, None where there is no file. DamagedError for a file that is not what was written.

        shape: a TypedDict that a file without a checksum has to fit. upgrade: makes today's fields of what is stored.
        """
        data = self._read(name)
        if data is None:
            return None
        value = self._parsed(name, data)
        checksum = value.pop(KEY, None)
        if checksum not in (None, _of_json(name, value)):
            raise DamagedError(self.path(name), "its content does not fit its checksum")
        if upgrade is not None:
            value = upgrade(self.path(name), value)
        if checksum is None:
            self.check_shape(name, value, shape)
        return value

    def check_shape(self, name: str, value: Any, shape: Any) -> None:
        """DamagedError unless `value`, of file `name`, fits the TypedDict `shape`."""
        try:
            _adapter(shape).validate_python(value, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise DamagedError(self.path(name), f"{where}: {first['msg']}" if where else first["msg"]) from error

    def write_lines(self, name: str, records: Sequence[Fields]) -> None:
        """JSONL. Each line has the checksum of all, so that a line that is gone is missed."""
        checksum = _of_json(name, list(records))
        with atomic_path(self.path(name)) as temporary:
            temporary.write_text("".join(json.dumps(one | {KEY: checksum}, sort_keys=True) + "\n" for one in records))

    def read_lines(self, name: str, shape: Any) -> list[Fields]:
        """The records, none where there is no file. DamagedError as for `read_json`."""
        data = self._read(name)
        if data is None:
            return []
        records = [self._parsed(name, line) for line in data.splitlines()]
        checksums = {record.pop(KEY, None) for record in records}
        if checksums == {None}:
            self.check_shape(name, records, list[shape])
        elif checksums != {_of_json(name, records)}:
            raise DamagedError(self.path(name), "its content does not fit its checksum")
        return records

    def write_rows(self, name: str, table: pa.Table) -> None:
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        data = buffer.getvalue()
        footer = len(data) - PARQUET_END - int.from_bytes(data[-PARQUET_END : -PARQUET_END + 4], "little")
        sealed = [data[:footer], MARK, _digest(name, data).encode(), data[footer:]]
        with atomic_path(self.path(name)) as temporary:
            temporary.write_bytes(b"".join(sealed))

    def read_rows(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The table, or some of its columns. FileNotFoundError where there is no file; DamagedError as for JSON."""
        data = self._read(name)
        if data is None:
            raise FileNotFoundError(self.path(name))
        self._check_parquet(name, data)
        try:
            with pq.ParquetFile(pa.BufferReader(data)) as file:
                absent = set(columns or ()) - set(file.schema_arrow.names)
                table = file.read(columns=None if columns is None else list(columns))
        except Exception as error:  # a file without a checksum can be broken in any way
            if what_ran_out(error):
                raise
            raise DamagedError(self.path(name), str(error)) from error
        if absent:
            raise DamagedError(self.path(name), f"it has no column {', '.join(sorted(absent))}")
        return table

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def _read(self, name: str) -> bytes | None:
        try:
            return self.path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError as error:
            raise DamagedError(self.path(name), "it is a folder") from error
        except OSError as error:
            if what_ran_out(error):
                raise
            raise RequestError(f"{self.path(name)} cannot be read: {error.strerror}") from error

    def _parsed(self, name: str, data: bytes) -> Fields:
        try:
            value = json.loads(data, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise DamagedError(self.path(name), str(error)) from error
        if not isinstance(value, dict):
            raise DamagedError(self.path(name), f"it holds {_kind(value)}, not an object")
        return value

    def _check_parquet(self, name: str, data: bytes) -> None:
        at = data.rfind(MARK)
        if at < 0:
            return
        end = at + len(MARK) + DIGITS
        if data[at + len(MARK) : end] != _digest(name, data[:at] + data[end:]).encode():
            raise DamagedError(self.path(name), "its content does not fit its checksum")


def _digest(name: str, content: bytes) -> str:
    digest = blake2b(name.encode() + b"\0", digest_size=DIGITS // 2)
    digest.update(content)
    return digest.hexdigest()


def _of_json(name: str, value: Any) -> str:
    return _digest(name, json.dumps(value, sort_keys=True).encode())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null", bool: "a truth value"}.get(type(value), "a number")


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)
