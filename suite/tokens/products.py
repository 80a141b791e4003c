"""Products of two batches of rows: of unit rows in single precision, and one that is scaled by the same kernel."""

import torch
from torch import Tensor, baddbmm

from suite.tokens.grouping import is_half


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """(B, M, d) and (B, N, d) unit rows -> (B, M, N) products in float32 at least.

    Rounded to half precision, cosines would tie, and of tied ones the first place wins: what a method merges would
    follow where tokens stand.
    """
    if not is_half(a):
        return a @ b.transpose(1, 2)
    differentiated = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    if a.is_cuda and torch.version.hip is None and not differentiated:
        return torch.bmm(a, b.transpose(1, 2), out_dtype=torch.float32)
    return a.float() @ b.float().transpose(1, 2)


def scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """(B, M, d) and (B, N, d) -> (B, M, N) scale · a bᵀ, rounded once: what overflows is the scaled product alone."""
    return baddbmm(a.new_empty(1, 1, 1), a, b.transpose(1, 2), beta=0, alpha=scale)  # beta 0: what is there is not read
