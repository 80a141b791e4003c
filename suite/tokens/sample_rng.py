"""Random numbers that a sample draws for itself: the same in every run, on every device, in every batch."""

from __future__ import annotations

import torch
from torch import Tensor

PRIME = 0x9E3779B1  # of Fibonacci hashing
MASK = 0xFFFFFFFF


def scramble(x: Tensor) -> Tensor:
    """A 32-bit integer hash (xorshift-multiply, Wellons' lowbias32) of int64 values, so that every device agrees."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & MASK
    return x ^ (x >> 16)


def random_order(patches: Tensor, seed: int, block: int) -> Tensor:
    """(B, T, C) normed patch tokens -> (B, T) int64, a random permutation of [0, T) for every sample.

    The draw is seeded by `seed`, the block and a coarse fingerprint of the sample, so that samples are drawn for
    separately while a result never depends on the neighbours in its batch, and every run draws the same.
    """
    # coarse steps on a few averaged channels: float noise between batch sizes does not reach the fingerprint
    content = (8 * patches[:, :, :8].float().mean(1)).floor().long()
    key = torch.full_like(content[:, 0], (seed * PRIME + block) & MASK)
    for channel in content.unbind(1):
        key = scramble((key ^ channel) & MASK)
    position = torch.arange(patches.shape[1], device=key.device)
    draw = scramble((key[:, None] + PRIME * (position + 1)) & MASK)
    return draw.argsort(dim=1, stable=True)
