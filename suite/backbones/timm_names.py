"""Which of timm's models by name can be reduced, and why others cannot."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

import timm

# Modules of timm that define models of a class which has a family.
MODULES = (
    "vision_transformer",
    "vision_transformer_hybrid",
    "deit",
    "vitamin",
    "eva",
    "vision_transformer_relpos",
    "beit",
)
# What the definition of a model says of its blocks -> why these are not one reducible block.
REASONS = {
    r"ParallelThingsBlock": "several attentions beside each other, each with keys of its own",
    r"attn_layer='diff'|DiffParallel": "attention is the difference of two maps, of which a token has no share",
}


class NamedModel(NamedTuple):
    """trained: timm has weights for it. refused: why it cannot be reduced; '' where it can."""

    name: str
    trained: bool
    refused: str


def list_models() -> Iterator[NamedModel]:
    """Models of timm that are defined where models of a known class are.

    Told apart by how timm defines them, without building them: a family's `check` has the last word.
    """
    for name in timm.list_models(module=list(MODULES)):
        source = inspect.getsource(timm.model_entrypoint(name))
        refused = next((why for words, why in REASONS.items() if re.search(words, source)), "")
        yield NamedModel(name, bool(timm.list_pretrained(f"{name}.*")), refused)
