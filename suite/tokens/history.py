"""How a token set changed: what owner maps and restoring are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from suite.tokens.constants import positions
from suite.tokens.grouping import Matching, take

Restore = Callable[[Tensor], Tensor]
"""What gives the features of tokens (B, N, C) back to those before a step."""


class SoftStep(Protocol):
    """A soft merge: as many tokens as before, in another order."""

    def restore(self, x: Tensor) -> Tensor:
        """Features (B, N, C) of the tokens afterwards -> of those before."""

    def origin(self) -> Tensor:
        """(B, N) int64 where each token afterwards was before."""


@dataclass(frozen=True)
class Step:
    """One change of the token set, kept so that owner maps are composed only when somebody asks for them.

    Who stays is said by `matching` or by `places` (B, M), which holds `count` where a place afterwards is padding;
    `assigned` (B, count), where given, says it all. `pruned` (B, 1) bool: samples whose sources are dropped.
    mixed: those that stay hold something of others.
    `frozen` (B, D, C), where tokens were dropped and are to be restored: what they were; `gone` (B, D) their places.
    """

    count: int
    places: Tensor | None = None
    matching: Matching | None = None
    rest: int = -1
    assigned: Tensor | None = None
    gone: Tensor | None = None
    frozen: Tensor | None = None
    pruned: Tensor | None = None
    mixed: bool = False

    @property
    def kept(self) -> Tensor:
        """(B, M) positions before of those that stay, in their order afterwards."""
        if self.matching is not None:
            return self.matching.kept
        if self.places is None:
            raise ValueError("a step says by places, matching or assigned who stays")
        return self.places

    @property
    def source(self) -> Tensor | None:
        """(B, S) positions before of those merged away; None where nothing was merged."""
        return self.matching.source if self.matching is not None and self.matching.merged else None

    @property
    def target(self) -> Tensor | None:
        """(B, S) position afterwards that each source was merged into."""
        return self.matching.target if self.matching is not None and self.matching.merged else None

    def index_map(self) -> Tensor:
        """(B, count) int64: position before -> position after, -1 = dropped."""
        if self.assigned is not None:
            return self.assigned
        kept = self.kept
        batch, survivors = kept.shape
        out = kept.new_full((batch, self.count + 1), self.rest)
        out.scatter_(1, kept, positions(0, survivors, 1, out.device).expand(batch, -1))
        if self.source is not None and self.target is not None:
            target = self.target if self.pruned is None else self.target.masked_fill(self.pruned, self.rest)
            out.scatter_(1, self.source, target)
        return out[:, :-1]

    def freezing(self, x: Tensor, most: int | None) -> Step:
        """The same step, which remembers what of `x` (B, count, C) it drops: `most` of a sample, None: unknown."""
        dropped = self.index_map() < 0
        most = int(dropped.sum(1).max()) if most is None else most
        # stable, so in their order; where a sample loses fewer, nobody looks up what follows them
        gone = dropped.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        return replace(self, gone=gone, frozen=take(x, gone))


def compose_owner(x: Tensor, origin: int, steps: Sequence[Step]) -> Tensor:
    """(B, origin) int64: the token of `x` (B, N, C) that each original token ended in, -1 = dropped."""
    owner = positions(0, origin, 1, x.device).expand(x.shape[0], -1)
    for step in steps:
        moved = step.index_map().gather(1, owner.clamp(min=0))
        owner = torch.where(owner < 0, owner, moved)
    return owner


def rows_to_restore(x: Tensor, origin: int, steps: Sequence[Step]) -> tuple[Tensor, Tensor]:
    """Rows (B, R, C), those of `x` and what was dropped on the way, and for each original token its row (B, origin)."""
    rows, first = [x], int(x.shape[1])
    place = owner = positions(0, origin, 1, x.device).expand(x.shape[0], -1)
    for step in steps:
        moved = step.index_map().gather(1, owner.clamp(min=0))
        moved = torch.where(owner < 0, owner, moved)
        if step.frozen is not None and step.gone is not None:
            order = torch.arange(first, first + step.gone.shape[1], device=owner.device).expand_as(step.gone)
            row_of = owner.new_zeros(owner.shape[0], step.count).scatter_(1, step.gone, order)
            dropped = (owner >= 0) & (moved < 0)
            place = torch.where(dropped, row_of.gather(1, owner.clamp(min=0)), place)
            rows.append(step.frozen)
            first += step.gone.shape[1]
        owner = moved
    return torch.cat(rows, dim=1) if len(rows) > 1 else x, torch.where(owner < 0, place, owner)
