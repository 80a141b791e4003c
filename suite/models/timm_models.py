"""timm's models by name, remembered from one command to the next: to find out which there are takes seconds.

What was found is kept in the user's cache, by what timm's files and the one that reads them are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from suite.store.files import write_json
from tasks.reading.user_cache import user_cache

READER = Path(__file__).parents[1] / "backbones" / "timm_names.py"


class TimmModel(NamedTuple):
    """trained: timm has weights for it. refused: why it cannot be reduced; '' where it can."""

    name: str
    trained: bool
    refused: str


def list_timm_models(pattern: str = "*") -> Iterator[TimmModel]:
    """Those of which a family may know that match a wildcard, in timm's order."""
    for model in _remembered():
        if fnmatchcase(model.name, pattern):
            yield model


def _remembered() -> list[TimmModel]:
    place = user_cache("timm") / f"{_state()}.json"
    with suppress(OSError, ValueError, TypeError):
        return [TimmModel(*row) for row in json.loads(place.read_bytes())]
    from suite.backbones.timm_names import list_models

    found = [TimmModel(*model) for model in list_models()]
    with suppress(OSError):  # it is found again
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, found)
    return found


def _state() -> str:
    """Another one whenever the list may be another."""
    timm = find_spec("timm")
    assert timm is not None
    assert timm.origin is not None
    files = [READER, *sorted(Path(timm.origin).with_name("models").glob("*.py"))]
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
