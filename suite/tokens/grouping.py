"""Groups of tokens, and the ways to make one token of each group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is: sums of tokens are never taken in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, M) of `x` (B, N, C) or (B, N); rows are copied whole, several times faster than `gather`."""
    if x.dim() == 2:
        return x.gather(1, index)
    return x.flatten(0, 1).index_select(0, flat_index(index, x.shape[1])).unflatten(0, index.shape)


def flat_index(index: Tensor, length: int) -> Tensor:
    """Positions (B, M) in rows of `length` tokens as positions (B*M,) in the flattened batch."""
    return (index + length * torch.arange(index.shape[0], device=index.device)[:, None]).flatten()


def rank(score: Tensor, num_prefix: int) -> Tensor:
    """(B, N) scores -> (B, N - num_prefix) positions of the patch tokens, best first; ties keep their order."""
    return num_prefix + score[:, num_prefix:].argsort(dim=1, descending=True, stable=True)


@dataclass(frozen=True)
class Matching:
    """Which tokens survive a merge and where the others go. int64 positions, the same counts for every sample.

    kept: (B, M) positions before, in the order they have afterwards, prefix tokens first.
    source: (B, S) positions before of the tokens that are merged away.
    target: (B, S) position *afterwards* that each source is merged into.

    A group is a kept token with the sources that point at it; most groups hold one token.
    """

    kept: Tensor
    source: Tensor
    target: Tensor


def group_sum(values: Tensor, matching: Matching) -> Tensor:
    """(B, N) values -> (B, M) their sums over each group."""
    return take(values, matching.kept).scatter_add(1, matching.target, take(values, matching.source))


def group_mean(x: Tensor, matching: Matching, weight: Tensor) -> Tensor:
    """(B, N, C) rows and (B, N) weights -> (B, M, C) sum(w x) / sum(w) over each group, summed in float32 at least.

    A lone row is copied bit for bit.
    """
    return group_mean_of(take(x, matching.kept), take(x, matching.source), matching, weight)


def group_mean_of(kept: Tensor, source: Tensor, matching: Matching, weight: Tensor) -> Tensor:
    """`group_mean` of rows (B, M, C) and (B, S, C) that were taken from their places already; `kept` may be changed."""
    rows, target = full_precision(kept), matching.target
    weight = weight.to(rows.dtype)
    # only targets change, by their sources' shares: a lone token stays what it is, and no time is spent on it
    share = take(weight, matching.source) / group_sum(weight, matching).gather(1, target)
    moves = (full_precision(source) - take(rows, target)) * share[..., None]
    flat = rows.flatten(0, 1)
    flat.index_add_(0, flat_index(target, rows.shape[1]), moves.flatten(0, 1))
    return flat.unflatten(0, rows.shape[:2]).to(kept.dtype)


def group_max(x: Tensor, matching: Matching) -> Tensor:
    """(B, N, C) rows -> (B, M, C) the largest value per channel in each group."""
    rows = take(x, matching.kept)
    index = matching.target[..., None].expand(-1, -1, x.shape[2])
    return rows.scatter_reduce(1, index, take(x, matching.source), "amax")


def mlerp(x: Tensor, matching: Matching) -> Tensor:
    """(B, N, C) rows -> (B, M, C): the direction of each group's plain mean, the largest norm in the group.

    ToFu (Kim et al., WACV 2024): an average alone shrinks what it averages. A lone row is copied bit for bit;
    rows that cancel out (norm of the mean below 1e-6) give a finite result.
    """
    wide = full_precision(x)
    mean = group_mean(wide, matching, torch.ones(x.shape[:2], device=x.device))
    norms = wide.norm(dim=2)
    longest = take(norms, matching.kept).scatter_reduce(1, matching.target, take(norms, matching.source), "amax")
    merged = torch.zeros_like(longest).scatter(1, matching.target, 1.0)[..., None] > 0
    scale = (longest / mean.norm(dim=2).clamp(min=1e-6))[..., None]
    return torch.where(merged, mean * scale, mean).to(x.dtype)
