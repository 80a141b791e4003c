"""Weights of methods that come with the embedded models."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "weights" / "reducers"
EMBEDDED = "embedded"


def shipped_weights(model: str, reducer: str) -> Path | None:
    """The file of weights of `reducer` that comes with the embedded `model`, if there is one."""
    path = FOLDER / model / f"{reducer}.safetensors"
    return path if path.is_file() else None


def weights_path(source: str) -> Path:
    """The file behind the name of a source: 'embedded:model/reducer', or the path of a file."""
    kind, _, name = source.partition(":")
    return FOLDER / f"{name}.safetensors" if kind == EMBEDDED else Path(source)
