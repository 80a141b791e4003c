"""Where tokens are in the image once some were taken out and merged, for models whose blocks go by positions.

Rotary position embedding rotates queries and keys by the place of their patch (Su et al., arXiv 2104.09864; for images
Heo et al., ECCV 2024, arXiv 2403.13298); a relative position bias is added to the logits of each pair of places. What
stays as it is keeps its own place. For a group there are two rules:

- 'representative': the place of the token that the others were merged into;
- 'mean': the mean of the rotations, or of the biases, of all original tokens that it stands for. Its rotated key is
  the mean of those that they would have if each were it: shorter, the farther they lie apart.

Tokens that nobody represents (EViT's fused one, those that a method mixes of all) have the mean under either rule; one
of which nobody counts as part is not rotated and has no bias. Prefix tokens are never rotated. Where tokens are merged
softly (training), everyone keeps its own place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.tokens.constants import positions
from suite.tokens.grouping import full_precision
from suite.tokens.history import Step

if TYPE_CHECKING:
    from suite.tokens.state import Tokens

RULES = ("representative", "mean")
NOBODY = -1


@dataclass(frozen=True)
class Places:
    """Where the tokens of one forward are.

    rotations: what the model rotates its P patches by, sines and then cosines in the last of (..., P, 2·d); leading
    dimensions are heads (H), or samples and heads (B, H); None without rotary position embedding. by_block: before
    those comes one for blocks.
    place: (B, N) int64 the original token that stands for each token, `NOBODY` where there is none; None: its own.
    represented: False once there may be tokens that nobody stands for.
    """

    rotations: Tensor | None = None
    by_block: bool = False
    rule: str = RULES[0]
    place: Tensor | None = None
    represented: bool = True

    def after(self, step: Step, num_prefix: int, count: int) -> Places:
        """The same when a step has left `count` tokens."""
        if step.assigned is None:
            kept = step.kept.clamp(max=step.count - 1)  # of padding, any
        else:
            kept = positions(0, num_prefix, 1, step.assigned.device).expand(step.assigned.shape[0], -1)
        place = kept if self.place is None else self.place.gather(1, kept)
        fresh = count - kept.shape[1]
        if fresh:
            place = F.pad(place, (0, fresh), value=NOBODY)
        return replace(self, place=place, represented=self.represented and not fresh)

    def reordered(self, origin: Tensor) -> Places:
        """The same for tokens of which each was at `origin` (B, N) before."""
        return replace(self, place=origin if self.place is None else self.place.gather(1, origin))

    def anew(self) -> Places:
        """Of all original tokens again."""
        return replace(self, place=None, represented=True)


def rotations_of(tokens: Tokens, block: int) -> Tensor | None:
    """(B, H or 1, N - num_prefix, 2·d) what patch tokens are rotated by in `block`; the model's own while all are left.

    None without rotary position embedding.
    """
    places, prefix = tokens.places, tokens.num_prefix
    if places is None or places.rotations is None:
        return None
    table = places.rotations[block] if places.by_block else places.rotations
    if places.place is None:
        return table
    table = table.view(*[1] * (4 - table.dim()), *table.shape)
    width = table.shape[3]
    nothing = (torch.arange(width, device=table.device) >= width // 2).to(table.dtype)  # sine 0, cosine 1
    return _rows(table, tokens, places.place, prefix, nothing)


def bias_of(tokens: Tokens, bias: Tensor) -> Tensor:
    """(B, H, N, N) between the tokens that are left, of what the model adds between all (1, H, N0, N0)."""
    place = None if tokens.places is None else tokens.places.place
    if place is None:
        return bias
    nothing = bias.new_zeros(())
    rows = _rows(bias, tokens, place, 0, nothing)
    return _rows(rows.transpose(2, 3), tokens, place, 0, nothing).transpose(2, 3)


def _rows(table: Tensor, tokens: Tokens, place: Tensor, first: int, nothing: Tensor) -> Tensor:
    """Rows of a table (B or 1, H or 1, N0 - first, D) -> (B, H or 1, N - first, D) of the tokens from the first on."""
    place, places = place[:, first:], tokens.places
    by_mean = places is not None and places.rule == "mean"
    owner = tokens.owner if by_mean or not (places and places.represented) else None
    if owner is None:
        return rows_at(table, (place - first).clamp(min=0))
    mean = mean_rows(table, owner[:, first:] - first, place.shape[1], nothing)
    if by_mean:
        return mean
    return torch.where((place == NOBODY)[:, None, :, None], mean, rows_at(table, (place - first).clamp(min=0)))


def rows_at(table: Tensor, place: Tensor) -> Tensor:
    """Rows `place` (B, n) of a table (B or 1, H, P, D) -> (B, H, n, D)."""
    if table.shape[0] != 1 or place.shape[0] == 1:
        return table.take_along_dim(place[:, None, :, None], 2)
    return table[0].index_select(1, place.flatten()).unflatten(1, place.shape).transpose(0, 1)


def mean_rows(table: Tensor, owner: Tensor, count: int, nothing: Tensor) -> Tensor:
    """(B, H, count, D) means of the rows of a table (B or 1, H, P, D) over `owner` (B, P) in [0, count).

    Below 0 it is nobody's. Without a row: `nothing`.
    """
    batch, patches = owner.shape
    owned = owner.masked_fill(owner < 0, count)
    rows = full_precision(table).expand(batch, -1, -1, -1)
    index = owned[:, None, :, None].expand_as(rows)
    total = rows.new_zeros(*rows.shape[:2], count + 1, rows.shape[3]).scatter_add(2, index, rows)[:, :, :-1]
    parts = rows.new_zeros(batch, count + 1).scatter_add(1, owned, rows.new_ones(batch, patches))[:, None, :-1, None]
    return torch.where(parts > 0, total / parts.clamp(min=1), nothing.to(rows.dtype)).to(table.dtype)
