"""The tokens that travel through a backbone, and the algebra that all reducers share."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """

    kept: Tensor
    source: Tensor
    target: Tensor


@dataclass(frozen=True)
class Step:
    """One change of the token set, kept so that owner maps are composed only when somebody asks for them."""

    count: int
    kept: Tensor
    source: Tensor | None = None
    target: Tensor | None = None
    rest: int = -1

    def index_map(self) -> Tensor:
        """(B, count) int64: position before -> position after, -1 = dropped."""
        batch, survivors = self.kept.shape
        out = self.kept.new_full((batch, self.count), self.rest)
        places = torch.arange(survivors, device=out.device).expand(batch, -1)
        out.scatter_(1, self.kept, places)
        if self.source is not None:
            out.scatter_(1, self.source, self.target)
        return out


@dataclass(frozen=True)
class Tokens:
    """The state between two blocks.

    x: (B, N, C) features, prefix tokens (class, distillation, register) first.
    num_prefix: how many prefix tokens there are; no operation removes or merges them.
    origin: N0, the number of tokens that entered the first block.
    size: (B, N) float32, original tokens that each token stands for; None while all are 1.
    """

    x: Tensor
    num_prefix: int
    origin: int
    size: Tensor | None = None
    steps: tuple[Step, ...] = ()

    @classmethod
    def start(cls, x: Tensor, num_prefix: int) -> Tokens:
        return cls(x, num_prefix, origin=x.shape[1])

    @property
    def count(self) -> int:
        """N, prefix tokens included."""
        return int(self.x.shape[1])  # a tracer hands out sizes as tensors

    @property
    def num_patches(self) -> int:
        return self.x.shape[1] - self.num_prefix

    @property
    def sizes(self) -> Tensor:
        """(B, N) float32, ones where no merge has happened yet."""
        if self.size is not None:
            return self.size
        return torch.ones(self.x.shape[:2], device=self.x.device)

    @property
    def owner(self) -> Tensor:
        """(B, N0) int64: the token that each original token ended in, -1 = dropped."""
        owner = torch.arange(self.origin, device=self.x.device).expand(self.x.shape[0], -1)
        for step in self.steps:
            moved = step.index_map().gather(1, owner.clamp(min=0))
            owner = torch.where(owner < 0, owner, moved)
        return owner

    @property
    def log_size(self) -> Tensor | None:
        """(B, 1, 1, N) additive bias of proportional attention (ToMe, eq. 1) in x's dtype; None while sizes are 1."""
        if self.size is None:
            return None
        return self.size.to(torch.promote_types(self.x.dtype, torch.float32)).log().to(self.x.dtype)[:, None, None]

    def with_features(self, x: Tensor) -> Tokens:
        return replace(self, x=x)

    def keep(self, index: Tensor, fused: Tensor | None = None) -> Tokens:
        """Keep the prefix tokens and `index` (B, K: positions, in their new order), drop the others.

        `fused` (B, 1, C) is appended as a last token that stands for all that is dropped and owns it.
        """
        prefix = torch.arange(self.num_prefix, device=index.device).expand(index.shape[0], -1)
        kept = torch.cat([prefix, index], dim=1)
        x = take(self.x, kept)
        size = None if self.size is None else take(self.size, kept)
        rest = -1
        if fused is not None:
            rest = kept.shape[1]
            x = torch.cat([x, fused.to(x.dtype)], dim=1)
            survived = take(self.sizes, kept)
            gone = self.sizes.sum(1, keepdim=True) - survived.sum(1, keepdim=True)
            size = torch.cat([survived, gone], dim=1)
        return replace(self, x=x, size=size, steps=(*self.steps, Step(self.count, kept, rest=rest)))

    def merge(self, matching: Matching) -> Tokens:
        """Average every source into its target, weighted by size; a token alone in its group is copied exactly.

        x' = sum(s x) / sum(s), s' = sum(s) over the group, in float32 (ToMe, section 3).
        """
        kept, source, target = matching.kept, matching.source, matching.target
        if source.shape[1] == 0:
            return self
        sizes = self.sizes
        before, moved = take(sizes, kept), take(sizes, source)
        size = before.scatter_add(1, target, moved)
        rows = full_precision(take(self.x, kept))
        # only targets change, by their sources' shares: a lone token stays bit for bit, and no time is spent on it
        share = (moved / size.to(rows.dtype).gather(1, target))[..., None]
        moves = (full_precision(take(self.x, source)) - take(rows, target)) * share
        flat = rows.flatten(0, 1)
        flat.index_add_(0, flat_index(target, kept.shape[1]), moves.flatten(0, 1))
        x = flat.unflatten(0, kept.shape).to(self.x.dtype)
        return replace(self, x=x, size=size, steps=(*self.steps, Step(self.count, kept, source, target)))

    def expand(self, x: Tensor | None = None) -> Tensor:
        """Give every original token the features (B, N0, C) of the token that owns it.

        Raises ValueError where a token was dropped and nobody owns it.
        """
        owner = self.owner
        if bool((owner < 0).any()):
            raise ValueError("some tokens were dropped without an owner; they cannot be restored")
        return take(self.x if x is None else x, owner)
