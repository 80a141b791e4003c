"""Sentences scored against themselves before any caption is: a scorer that misses the known values is broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.errors import CellError

SENTENCES = {
    "1": "A woman rides a brown horse along the beach.",
    "2": "Two dogs, asleep under an old tree!",
    "3": "There's pizza on this white plate",
}
TOKENS = {
    "1": "a woman rides a brown horse along the beach",
    "2": "two dogs asleep under an old tree",
    "3": "there 's pizza on this white plate",
}
# One reference each, every n-gram in one document alone or, like "a", not in all: CIDEr is its largest value.
KNOWN = {
    **dict.fromkeys(("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "spice"), 1.0),
    "cider": 10.0,
}
TOLERANCE = 1e-6  # BLEU adds 1e-9 to its denominators


def check_canary(tokens: Mapping[str, Any], scores: Mapping[str, float]) -> None:
    """CellError unless the sentences were tokenised as known and every metric gave its known value."""
    if tokens != TOKENS:
        raise CellError(f"canary: the PTB tokenizer gave {dict(tokens)} instead of {TOKENS}")
    for metric, value in scores.items():
        if not abs(value - KNOWN[metric]) <= TOLERANCE:  # NaN too
            raise CellError(f"canary: {metric} gave {value:.6g} instead of {KNOWN[metric]:g}")
