"""Segments of the raster order around centres, and the matrices that make one token of each and give it back.

Prune-and-Merge (Mao et al., 2025, arXiv 2503.23455), from scores of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from suite.tokens.constants import remembered

EPSILON = 1e-8  # of the authors', in both divisions


class SegmentPlan(NamedTuple):
    """What one block does. merge: (c, N). recover: (N, c). alive: (N,) 1, or 0 of what passes the block by. part: (N,)
    int64 in [0, c), the row that a token lies in. Prefix tokens, first, are alone in their rows."""

    merge: Tensor
    recover: Tensor
    alive: Tensor
    part: Tensor


def plan_blocks(
    importance: Tensor, blocks: Sequence[int], prune: float, keep: float, columns: int, num_prefix: int
) -> dict[int, SegmentPlan]:
    """The plans of `blocks` by the importance (L, n) >= 0 of every block's patches, which are ranked all together.

    prune, keep: the shares of patches that pass blocks by, and that segments are made around, on average over blocks. A
    later block's patches count for less, 2.5 % of a block's each. ValueError for a block that no centre is left in.
    """
    taken = importance[list(blocks)]
    depth = torch.tensor(blocks, dtype=taken.dtype)[:, None]
    score = taken / (taken.norm(dim=1, keepdim=True) + EPSILON) * (1 - 0.025 * depth)
    patches, ranked = score.shape[1], score.flatten().sort().values
    gone, centres = int(patches * prune) * len(blocks), int(patches * keep) * len(blocks)
    if not 0 < centres <= len(ranked) - gone:
        raise ValueError(
            f"keep={keep:g} and prune={prune:g} are shares of {patches} patches that leave nothing to merge"
        )
    alive = score >= ranked[gone]
    plans = {}
    for block, row, stays in zip(blocks, score * alive, alive, strict=True):
        at = (row >= ranked[-centres]).nonzero().flatten().tolist()
        if not at:
            raise ValueError(
                f"no patch of block {block} is among the most important; keep more, or leave the block out"
            )
        plans[block] = plan_segments(row, stays, at, columns, num_prefix)
    return plans


def plan_segments(score: Tensor, alive: Tensor, centres: Sequence[int], columns: int, num_prefix: int) -> SegmentPlan:
    """The plan of one block by scores (n,), 0 where a patch is pruned, (n,) bool who is not, and ascending centres."""
    patches, whole = len(score), num_prefix + len(centres)
    merge = score.new_zeros(whole, num_prefix + patches)
    merge[range(num_prefix), range(num_prefix)] = 1
    part = torch.arange(num_prefix + patches)
    ends = segment_ends(centres, patches, columns)
    for row, (begin, end, centre) in enumerate(zip([0, *ends], ends, centres, strict=False), start=num_prefix):
        merge[row, num_prefix + begin : num_prefix + end] = score[begin:end] / (score[centre] + EPSILON)
        part[num_prefix + begin : num_prefix + end] = row
    # the pseudo-inverse: rows have no column in common
    recover = (merge / merge.square().sum(1, keepdim=True)).T.contiguous()
    prefix = torch.ones(num_prefix, dtype=torch.bool, device=alive.device)
    return SegmentPlan(merge, recover, torch.cat([prefix, alive]).to(score.dtype), part)


def segment_ends(centres: Sequence[int], patches: int, columns: int) -> list[int]:
    """Where each segment ends, exclusive: half-way to the next centre, but within the row of the image."""
    ends = []
    for centre, following in pairwise(centres):
        end, row = -(-(centre + following) // 2), (centre + 1) // columns
        ends.append(min(end, (row + 1) * columns))
    return [*ends, patches]


@remembered
def even_merge(
    patches: int, centres: int, columns: int, num_prefix: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(c, N) `merge` of a plan that nothing was learned for: centres at even distances, all patches worth the same."""
    at = [(2 * place + 1) * patches // (2 * centres) for place in range(centres)]
    ends = segment_ends(at, patches, columns)
    lengths = [1] * num_prefix + [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    part = [row for row, length in enumerate(lengths) for _ in range(length)]
    # in three steps, not one a segment: a program that is exported holds them, in every block
    return (torch.arange(len(lengths), device=device)[:, None] == torch.tensor(part, device=device)).to(dtype)
