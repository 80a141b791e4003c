"""Evenly spaced patches: a floor that looks at nothing."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import first_rows, remembered


@register("uniform")
class Uniform(Reducer):
    """Keep patches at evenly spaced positions floor((i + 1/2) T / k) of the current sequence. A sanity floor.

    When: a floor is wanted: what does a method gain by looking at the image?
    """

    rates = ("r", "keep")
    staged = True
    reads_sizes = False
    in_branches = True

    def after_attention(self, tokens, signals, amount):
        kept, device = tokens.num_patches - amount, tokens.x.device
        return tokens.keep_rows(spaced_rows(tokens.x.shape[0], tokens.count, tokens.num_prefix, kept, device))


@remembered
def spaced_rows(batch, count, num_prefix, kept, device):
    """(B, kept) int64 rows of the flattened batch: evenly spaced patches of sequences of `count` tokens."""
    place = (2 * torch.arange(kept, device=device) + 1) * (count - num_prefix) // (2 * kept)
    return first_rows(batch, count, num_prefix, device) + place
