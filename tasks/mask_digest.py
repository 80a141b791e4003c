"""What a mask comes to in 64 bits, made where the mask is: two masks of an image are equal where these are.

Whole numbers alone, so that every device says the same, in whatever order it adds them up.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mask_digest(mask: Tensor, weights: Tensor) -> Tensor:
    """() int64: the sum, modulo 2^64, of every pixel's class times its weight. mask: (H, W) uint8; weights: at least
    H·W of `position_weights`."""
    return (mask.flatten().long() * weights[: mask.numel()]).sum()


def position_weights(count: int, device: torch.device) -> Tensor:
    """(count,) int64, as if drawn at random, the bits of uint64: of place i the output i of splitmix64 from seed 0.

    Source: G. L. Steele Jr., D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    state: Tensor = torch.arange(1, count + 1, device=device) * _signed(GAMMA)
    state = (state ^ _shifted(state, 30)) * _signed(FIRST)
    state = (state ^ _shifted(state, 27)) * _signed(SECOND)
    return state ^ _shifted(state, 31)


def _signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


def _shifted(state: Tensor, by: int) -> Tensor:
    """To the right, zeros coming in from the left as in uint64."""
    shifted: Tensor = (state >> by) & (2 ** (64 - by) - 1)
    return shifted
