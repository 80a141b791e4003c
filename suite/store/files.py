"""Files that are either whole or not there."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.errors import RequestError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to; on success its file takes `path`'s name in one step, so a kill leaves no torn file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys, atomically. NaN is refused: no data is null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any | None:
    """The value, or None where there is no file. RequestError for a file that is not JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is damaged ({error}); delete it and run the same command again") from error


def once(path: Path, make: Callable[[], Any]) -> Any:
    """The JSON at `path`, made and written if it is not there."""
    value = read_json(path)
    if value is None:
        value = make()
        write_json(path, value)
    return value
