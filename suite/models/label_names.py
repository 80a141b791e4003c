"""The names of a classifier's classes, where what lies with its weights says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = ("class_to_idx", "idx_to_class", "id2label", "label_names", "class_names", "classes", "CLASSES")
"""By which torchvision, transformers, timm and mmpretrain name them."""


def label_names_in(said: Mapping[str, Any]) -> tuple[str, ...]:
    """The names by class index, from one of `KEYS`: a list, index -> name or name -> index; () where none says all."""
    return next((names for key in KEYS if (names := _in_order(said.get(key)))), ())


def _in_order(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return ()
    value = dict(dict.items(value))  # a file can put anything in the place of an instance's methods
    by_index = {index: name for name, index in value.items()} if _are_texts(value) else dict(value)
    indices = {int(index): name for index, name in by_index.items() if str(index).isdecimal()}
    whole = sorted(indices) == list(range(len(value))) and all(isinstance(name, str) for name in indices.values())
    return tuple(indices[i] for i in range(len(value))) if whole else ()


def _are_texts(value: Mapping[Any, Any]) -> bool:
    """Whether the keys are names: texts that have whole numbers."""
    return all(isinstance(name, str) and type(index) is int for name, index in value.items())
