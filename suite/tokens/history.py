"""How a token set changed: what owner maps and restoring are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from suite.tokens.grouping import take


@dataclass(frozen=True)
class Step:
    """One change of the token set, kept so that owner maps are composed only when somebody asks for them.

    `kept` holds `count` where a place afterwards is padding. `assigned` (B, count), where given, says it all.
    `frozen` (B, D, C), where tokens were dropped and are to be restored: what they were; `gone` (B, D) their places.
    """

    count: int
    kept: Tensor
    source: Tensor | None = None
    target: Tensor | None = None
    rest: int = -1
    assigned: Tensor | None = None
    gone: Tensor | None = None
    frozen: Tensor | None = None

    def index_map(self) -> Tensor:
        """(B, count) int64: position before -> position after, -1 = dropped."""
        if self.assigned is not None:
            return self.assigned
        batch, survivors = self.kept.shape
        out = self.kept.new_full((batch, self.count + 1), self.rest)
        places = torch.arange(survivors, device=out.device).expand(batch, -1)
        out.scatter_(1, self.kept, places)
        if self.source is not None and self.target is not None:
            out.scatter_(1, self.source, self.target)
        return out[:, :-1]

    def freezing(self, x: Tensor, most: int | None) -> Step:
        """The same step, which remembers what of `x` (B, count, C) it drops: `most` of a sample, None: unknown."""
        dropped = self.index_map() < 0
        most = int(dropped.sum(1).max()) if most is None else most
        # stable, so in their order; where a sample loses fewer, nobody looks up what follows them
        gone = dropped.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        return replace(self, gone=gone, frozen=take(x, gone))
