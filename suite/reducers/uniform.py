"""Evenly spaced patches: a floor that looks at nothing."""

import torch

from suite.reducers.base import Reducer, register


@register("uniform")
class Uniform(Reducer):
    """Keep patches at evenly spaced positions floor((i + 1/2) T / k) of the current sequence. A sanity floor."""

    rates = ("r", "keep")
    staged = True

    def after_attention(self, tokens, signals, amount):
        patches = tokens.num_patches
        kept = patches - amount
        index = (2 * torch.arange(kept, device=tokens.x.device) + 1) * patches // (2 * kept)
        return tokens.keep(tokens.num_prefix + index.expand(tokens.x.shape[0], -1))
