"""Random patches: the floor that every method has to beat."""

import torch

from suite.reducers.base import Reducer, register

PRIME = 0x9E3779B1  # of Fibonacci hashing
MASK = 0xFFFFFFFF


def scramble(x: torch.Tensor) -> torch.Tensor:
    """A 32-bit integer hash (xorshift-multiply, Wellons' lowbias32) of int64 values, so that every device agrees."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & MASK
    return x ^ (x >> 16)


@register("random")
class Random(Reducer):
    """Drop patches chosen uniformly at random, order kept. A sanity floor.

    The draw is seeded by `seed`, the block and a coarse fingerprint of the sample, so that samples are drawn for
    separately while a result never depends on the neighbours in its batch, and every run draws the same.
    """

    rates = ("r", "keep")
    staged = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def after_attention(self, tokens, signals, amount):
        prefix, patches = tokens.num_prefix, tokens.num_patches
        # coarse steps on a few averaged channels: float noise between batch sizes does not reach the fingerprint
        content = (8 * signals.normed[:, prefix:, :8].float().mean(1)).floor().long()
        key = torch.full_like(content[:, 0], (self.seed * PRIME + signals.block) & MASK)
        for channel in content.unbind(1):
            key = scramble((key ^ channel) & MASK)
        position = torch.arange(patches, device=key.device)
        draw = scramble((key[:, None] + PRIME * (position + 1)) & MASK)
        kept = draw.argsort(dim=1, stable=True)[:, : patches - amount].sort(dim=1).values
        return tokens.keep(prefix + kept)
