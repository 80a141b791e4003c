"""Which of timm's models by name can be reduced, and why others cannot; remembered from one command to the next.

To find out takes the seconds that timm takes to be imported. What was found is kept in the user's cache, by what timm's
files and this one are.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from suite.store.files import write_json
from tasks.reading.user_cache import user_cache

# Modules of timm that define models of a class which has a family.
MODULES = (
    "vision_transformer",
    "vision_transformer_hybrid",
    "deit",
    "vitamin",
    "eva",
    "naflexvit",
    "vision_transformer_relpos",
    "beit",
)
# What the definition of a model says of its blocks -> why these are not one reducible block.
REASONS = {
    r"ParallelThingsBlock": "several attentions beside each other, each with keys of its own",
    r"attn_layer='diff'|DiffParallel": "attention is the difference of two maps, of which a token has no share",
}


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
    found = list(find_timm_models())
    with suppress(OSError):  # it is found again
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, found)
    return found


def find_timm_models() -> Iterator[TimmModel]:
    """Those that are defined where models of a known class are.

    Told apart by how timm defines them, without building them: a family's `check` has the last word.
    """
    import timm

    for name in timm.list_models(module=list(MODULES)):
        source = inspect.getsource(timm.model_entrypoint(name))
        refused = next((why for words, why in REASONS.items() if re.search(words, source)), "")
        yield TimmModel(name, bool(timm.list_pretrained(f"{name}.*")), refused)


def _state() -> str:
    """Another one whenever the list may be another."""
    timm = find_spec("timm")
    assert timm is not None
    assert timm.origin is not None
    files = [Path(__file__), *sorted(Path(timm.origin).with_name("models").glob("*.py"))]
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
