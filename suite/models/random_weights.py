"""Models with random weights, the same in every process."""

from __future__ import annotations

from typing import Any

import torch

from suite.models.registry import ModelEntry


def build_random(entry: ModelEntry, seed: int = 0, **options: Any) -> Any:
    """The model of an entry with weights from `seed`; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        # Only the CPU generator: torch.manual_seed would also reseed the GPUs, which fork_rng leaves alone here.
        torch.default_generator.manual_seed(seed)
        return entry.make(**options)
