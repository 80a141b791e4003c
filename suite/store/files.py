"""Files that are either whole or not there."""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from suite.errors import RequestError, what_ran_out

SETTLED = 3600.0  # seconds after which a temporary file on a file system without locks belongs to nobody


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to; on success its file takes `path`'s name in one step, so a kill leaves no torn file.

    What a kill leaves is a temporary file that nobody has locked; see `remove_orphans`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, owner = _owned(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(owner)


def is_temporary(path: Path) -> bool:
    """Whether it is a file that somebody writes, or did not finish writing."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_orphans(folder: Path) -> None:
    """Remove the temporary files below `folder` that no living process writes."""
    for path in folder.rglob(".*.tmp"):
        with suppress(OSError), left_behind(path) as left:  # another process was quicker, or it is no file
            if left:
                path.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among the processes that lock file `path`, which is made if need be. On a file system without locks there
    is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def lock_file(handle: int) -> None:
    """Lock an open file of this process' own, so that others see that it is alive."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock_file(handle: int) -> None:
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)


@contextmanager
def left_behind(path: Path) -> Iterator[bool]:
    """Whether no living process has locked the file; while that is so, this one has. On a file system without locks:
    whether it has not been written lately."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # another process was quicker
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left = True
    except BlockingIOError:
        left = False
    except OSError:
        left = time.time() - os.fstat(handle).st_mtime > SETTLED
    try:
        yield left
    finally:
        os.close(handle)


def _owned(path: Path) -> tuple[Path, int]:
    """A new temporary file beside `path`, and the handle whose lock says that this process is alive."""
    while True:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        lock_file(handle)
        if temporary.exists():  # else it was taken for an orphan's before it was locked
            return temporary, handle
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """UTF-8, atomically; lines end in a line feed on every system."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys, atomically. NaN is refused: no data is null."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_json(path: Path) -> Any | None:
    """The value, or None where there is no file. RequestError for a file that is not JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if what_ran_out(error):
            raise
        raise RequestError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is damaged ({error}); delete it and run the same command again") from error


def once(path: Path, make: Callable[[], Any]) -> Any:
    """The JSON at `path`, made and written if it is not there."""
    value = read_json(path)
    if value is None:
        value = make()
        write_json(path, value)
    return value
