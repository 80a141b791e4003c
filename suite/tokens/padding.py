"""Samples of a batch that keep different numbers of tokens: padded to the longest of them."""

from __future__ import annotations

import torch
from torch import Tensor


def padded(picked: Tensor) -> tuple[Tensor, Tensor | None]:
    """(B, T) bool -> positions (B, M) of what is picked, ascending, and (B, M) bool False on padding, or None.

    M is the largest number picked in a sample, which is read from the device once. Both are what `Tokens.keep` takes,
    positions counted from the first of T; None: all samples have the same number, and nothing pads.
    """
    counts = picked.sum(dim=1, keepdim=True)
    if not len(counts):  # of no sample nothing is picked
        return counts.expand(-1, picked.shape[1]), None
    shortest, longest = torch.stack(torch.aminmax(counts)).tolist()  # one read of the device; M has to be known
    index = picked.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
    return index, None if shortest == longest else torch.arange(longest, device=index.device) < counts
