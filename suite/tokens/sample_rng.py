"""Random numbers that a sample draws for itself: the same in every run, on every device, in every batch."""

from __future__ import annotations

import torch
from torch import Tensor

from suite.tokens.constants import remembered

PRIME = 0x9E3779B1  # of Fibonacci hashing
MASK = 0xFFFFFFFF


def scramble(x: Tensor) -> Tensor:
    """A 32-bit integer hash (xorshift-multiply, Wellons' lowbias32) of int64 values, so that every device agrees."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & MASK
    return x ^ (x >> 16)


def fingerprint(patches: Tensor) -> Tensor:
    """(B, T, C) normed patch tokens -> (B, 1) int64 in [0, 2^30): what a sample's draws are seeded by."""
    # coarse steps on a few averaged channels: float noise between batch sizes does not reach the fingerprint
    single = torch.promote_types(patches.dtype, torch.float32)
    content = (8 * patches[:, :, :8].mean(1, dtype=single)).floor().long()
    return (content * factors(content.shape[1], content.device)).sum(1, keepdim=True) & (MASK >> 2)


def draw(key: Tensor, count: int, seed: int, block: int) -> Tensor:
    """(B, 1) fingerprints -> (B, count) int64 in [0, 2^32), all different in a sample (multiplicative hash)."""
    random = numbers(count, seed, block, key.device)
    # 2 key + 1 is odd, by which different numbers stay different
    return torch.addcmul(random, key, random, value=2) & MASK


@remembered
def factors(count: int, device: torch.device) -> Tensor:
    """(count,) int64 numbers of 31 bits, one a channel."""
    return scramble(torch.arange(1, count + 1, device=device)) >> 1


@remembered
def numbers(count: int, seed: int, block: int, device: torch.device) -> Tensor:
    """(count,) different int64 numbers of 32 bits."""
    start = scramble(torch.full((1,), (seed * PRIME + block) & MASK, device=device))
    return scramble((start + PRIME * torch.arange(1, count + 1, device=device)) & MASK)
