"""What tokens add to the logits of attention: logarithms of their sizes, and of a policy that prunes them softly."""

from __future__ import annotations

import torch
from torch import Tensor

from suite.tokens.grouping import computed_in

SMALLEST_SIZE = 1e-20  # soft merging lets sizes fall to exactly 0, whose logarithm has no gradient


def floored_log(values: Tensor) -> Tensor:
    """Logarithm of values >= 0, those below `SMALLEST_SIZE` taken as that; the gradient passes as if they had not been
    raised (its value is the floor's), so that what has come down to 0 still learns."""
    return (values + (values.clamp(min=SMALLEST_SIZE) - values).detach()).log()


def bias_of_sizes(size: Tensor, dtype: torch.dtype, soft: bool, padded: bool) -> Tensor:
    """(B, N) sizes -> (B, 1, 1, N) additive bias of proportional attention (ToMe, eq. 1) in `dtype`.

    Sizes below `SMALLEST_SIZE`, which only soft merging and padding leave, count as that; after soft merging tokens
    that were merged away completely still learn (`floored_log`).
    """
    if soft:
        log = floored_log(size).to(dtype)
    else:
        log = computed_in(dtype, torch.log, size.clamp(min=SMALLEST_SIZE) if padded else size)
    return log[:, None, None]


def bias_of_policy(policy: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, N) policy -> (B, 1, N, N) additive bias in `dtype` that keeps attention off pruned tokens, but for its own.

    softmax(a + log p) is exp(a) p / sum(exp(a) p), DynamicViT's attention under a policy (Rao et al., 2021) in
    value and gradient. The authors add 1e-6 to the sum and as much, spread over all tokens, above the fraction
    line, so that it is never 0/0. No bias can do that, and a token that always sees itself needs no such guard: it
    is left out. What it changes in a share is at most 1e-6 / sum(exp(a - max a) p).
    """
    count = policy.shape[1]
    itself = torch.eye(count, dtype=torch.bool, device=policy.device)
    log = floored_log(policy).to(dtype)[:, None, None]
    return log.expand(-1, -1, count, -1).masked_fill(itself, 0)
