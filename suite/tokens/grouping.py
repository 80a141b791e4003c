"""Groups of tokens, and the ways to make one token of each group."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from suite.tokens.constants import first_rows, ones, positions, rows


def full_precision(x: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is: sums of tokens are never taken in half precision."""
    return x.float() if is_half(x) else x


HALF = torch.float16, torch.bfloat16


def is_half(x: Tensor) -> bool:
    return x.dtype in HALF


def computed_in(dtype: torch.dtype, operation: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`operation` of tensors, rounded to `dtype`: by one kernel where nobody differentiates or compiles."""
    if tensors[0].dtype == dtype or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return operation(*tensors).to(dtype)
    return operation(*tensors, out=torch.empty(0, dtype=dtype, device=tensors[0].device))


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, M) of `x` (B, N, C) or (B, N); rows are copied whole, several times faster than `gather`."""
    if x.dim() == 2:
        return x.gather(1, index)
    return take_rows(x, in_batch(index, x.shape[1]))


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """What stands at `rows` (B, M) of the flattened batch of `x` (B, N, C) or (B, N): (B, M, C) or (B, M)."""
    if x.dim() == 2:
        return x.take(rows)
    flat = x.flatten(0, 1)
    # a slice of rows would be copied once more to be flattened
    return flat.index_select(0, rows.flatten()).unflatten(0, rows.shape) if rows.is_contiguous() else flat[rows]


def in_batch(index: Tensor, length: int, first: int = 0) -> Tensor:
    """Positions (B, M), counted from `first`, in sequences of `length` tokens as rows (B, M) of the flattened batch."""
    return index + first_rows(index.shape[0], length, first, index.device)


def with_prefix(length: int, num_prefix: int, *parts: Tensor) -> Tensor:
    """(B, K) rows of the flattened batch: of each sample its prefix tokens, and then all `parts` (B, ...)."""
    return torch.cat([rows(parts[0].shape[0], length, 0, num_prefix, 1, parts[0].device), *parts], dim=1)


def flat_index(index: Tensor, length: int) -> Tensor:
    """Positions (B, M) in rows of `length` tokens as positions (B*M,) in the flattened batch."""
    return in_batch(index, length).flatten()


def rank(score: Tensor, num_prefix: int) -> Tensor:
    """(B, N) scores -> (B, N - num_prefix) positions of the patch tokens, best first; ties keep their order."""
    return num_prefix + score[:, num_prefix:].argsort(dim=1, descending=True, stable=True)


class Matching:
    """Which tokens survive a merge and where the others go. int64 positions, the same counts for every sample.

    kept: (B, M) positions before, in the order they have afterwards, prefix tokens first.
    source: (B, S) positions before of the tokens that are merged away.
    target: (B, S) position *afterwards* that each source is merged into.

    A group is a kept token with the sources that point at it; most groups hold one token.
    """

    def __init__(self, kept: Tensor, source: Tensor, target: Tensor) -> None:
        self._positions: tuple[Tensor, Tensor] | None = (kept, source)
        self._rows: tuple[Tensor, Tensor] | None = None
        self._count = 0  # of the tokens before, once it is known
        self.shape = tuple(kept.shape)
        self.into, self.first_target = target, 0
        self._order: Tensor | None = None
        self._shares: tuple[Tensor, torch.dtype, Shares] | None = None

    @classmethod
    def of_rows(cls, kept: Tensor, source: Tensor, into: Tensor, count: int, first_target: int = 0) -> Matching:
        """The same, said in what a merge copies by; positions are made of it when somebody asks.

        kept (B, M), source (B, S): rows of the flattened batch of sequences of `count` tokens. first_target: no target
        lies before this position. into: (B, S) targets counted from there.
        """
        made = cls(kept, source, into)
        made._positions, made._rows, made._count = None, (kept, source), count
        made.first_target = first_target
        return made

    @classmethod
    def of_order(cls, order: Tensor, survivors: int, into: Tensor, count: int, first_target: int = 0) -> Matching:
        """`of_rows` of `order` (B, M + S): first the M `survivors`, then the others, so that both are taken at once."""
        made = cls.of_rows(order[:, :survivors], order[:, survivors:], into, count, first_target)
        made._order = order
        return made

    @property
    def kept(self) -> Tensor:
        return self._as_positions()[0]

    @property
    def source(self) -> Tensor:
        return self._as_positions()[1]

    @property
    def target(self) -> Tensor:
        return self.into + self.first_target if self.first_target else self.into

    @property
    def ordered(self) -> bool:
        """`order` is there already."""
        return self._order is not None

    @property
    def merged(self) -> int:
        """S, how many go."""
        return int(self.into.shape[1])

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """`kept` and `source` as rows of the flattened batch of sequences of `count` tokens.

        ValueError for another `count` than it was made or asked for before.
        """
        if self._rows is None:
            kept, source = self._as_positions()
            self._rows, self._count = (in_batch(kept, count), in_batch(source, count)), count
        if count != self._count:
            raise ValueError(f"this matching is of sequences of {self._count} tokens, not {count}")
        return self._rows

    def order(self, count: int) -> Tensor:
        """(B, M + S) `rows` of both, one after the other."""
        if self._order is None:
            self._order = torch.cat(self.rows(count), dim=1)
        return self._order

    def owner(self, count: int) -> Tensor:
        """(B, count) int64 position afterwards of every token, counted from `first_target`; nobody may be dropped."""
        order, first = self.order(count), self.first_target
        own = positions(-first, self.shape[1] - first, 1, order.device).expand(self.shape[0], -1)
        ends = torch.cat([own, self.into], dim=1)
        return torch.empty_like(ends).flatten().scatter_(0, order.flatten(), ends.flatten()).view_as(ends)

    def _as_positions(self) -> tuple[Tensor, Tensor]:
        if self._positions is None:
            kept, source = self.rows(self._count)
            begin = first_rows(self.shape[0], self._count, 0, kept.device)
            self._positions = kept - begin, source - begin
        return self._positions


Pair = tuple[Tensor, Tensor]
"""Of what stays (B, M, ...), and of what is merged away (B, S, ...)."""


def take_groups(x: Tensor, matching: Matching) -> Pair:
    """Of `x` (B, N, C) or (B, N) what is kept (B, M, ...) and what is merged away (B, S, ...), both fresh."""
    count = int(x.shape[1])
    if x.dim() == 2 and matching.ordered:
        kept, source = take_rows(x, matching.order(count)).split([matching.shape[1], matching.merged], dim=1)
        return kept, source
    kept, source = matching.rows(count)
    return take_rows(x, kept), take_rows(x, source)


def ones_of_groups(matching: Matching, like: Tensor) -> Pair:
    """What `take_groups` would take of ones, of the dtype (float32 at least) and on the device of `like`."""
    (batch, count), dtype = matching.shape, torch.promote_types(like.dtype, torch.float32)
    fresh = torch.ones(batch, count, dtype=dtype, device=like.device)
    return fresh, ones(batch, matching.merged, dtype, like.device)


def sum_groups(values: Pair, matching: Matching) -> Tensor:
    """(B, M) sums over each group; what was kept is written over."""
    kept, source = values
    kept[:, matching.first_target :].scatter_add_(1, matching.into, source)
    return kept


class Shares(NamedTuple):
    """What sources give to their groups' means.

    rows: (B, S) where their targets are in the flattened batch afterwards. share: (B, S) of the weight of their group.
    total: (B, M) weights of all groups. among: (B, S, S), None in full precision: the shares of all that have the same
    target, for each of them.
    """

    rows: Tensor
    share: Tensor
    total: Tensor
    among: Tensor | None = None

    @classmethod
    def of(cls, matching: Matching, weights: Pair, dtype: torch.dtype) -> Shares:
        """By weights as `take_groups` gives them, which are written over; shares in `dtype`; without `among`."""
        (own, others), first = weights, matching.first_target
        total = sum_groups((own, others), matching)
        share = computed_in(dtype, torch.div, others, total[:, first:].gather(1, matching.into))
        return cls(target_rows(matching), share, total)


def shares(matching: Matching, weight: Tensor, dtype: torch.dtype) -> Shares:
    """By weights (B, N), shares in `dtype`: made once where several tensors are averaged by the same."""
    known = matching._shares
    if known is None or known[0] is not weight or known[1] != dtype:
        made = Shares.of(matching, take_groups(weight, matching), dtype)
        if dtype in HALF:
            made = made._replace(among=same_target(matching) * made.share[:, None])
        known = matching._shares = weight, dtype, made
    return known[2]


def target_rows(matching: Matching) -> Tensor:
    """(B, S) where the targets are in the flattened batch afterwards."""
    return in_batch(matching.into, matching.shape[1], matching.first_target)


def same_target(matching: Matching) -> Tensor:
    """(B, S, S) bool."""
    return matching.into[:, :, None] == matching.into[:, None]


def group_mean(x: Tensor, matching: Matching, weight: Tensor | None) -> Tensor:
    """(B, N, C) rows and (B, N) weights -> (B, M, C) sum(w x) / sum(w) over each group, summed in float32 at least.

    A lone row is copied bit for bit. weight: None: all are equal.
    """
    parts = take_groups(x, matching)
    if weight is None:
        return plain_mean(parts, matching)
    return average(parts, matching, shares(matching, weight, x.dtype))


def plain_mean(x: Pair, matching: Matching) -> Tensor:
    """`group_mean` with equal weights of what was taken from its places already and is written over."""
    kept, _ = x
    if not is_half(kept) or kept.requires_grad:
        return mean_groups(x, matching, None)[0]
    together = same_target(matching)
    among = computed_in(kept.dtype, torch.div, together, together.sum(2, keepdim=True) + 1)
    return move_targets(x, target_rows(matching), among)


def mean_groups(x: Pair, matching: Matching, weights: Pair | None) -> Pair:
    """`group_mean`, and the sums of weights (B, M), of what was taken from its places already and is written over."""
    given = Shares.of(matching, ones_of_groups(matching, x[0]) if weights is None else weights, x[0].dtype)
    return average(x, matching, given), given.total


def average(x: Pair, matching: Matching, given: Shares) -> Tensor:
    """(B, M, C) means by these shares, of what was taken from its places already and is written over.

    Only targets change, by their sources' shares: a lone token stays what it is.
    """
    (kept, source), share = x, given.share
    if given.among is not None and not kept.requires_grad:
        return move_targets(x, given.rows, given.among)
    moves = source - take_rows(kept, given.rows)
    if is_half(kept):  # a product adds up in single precision and rounds once
        taking_in = kept[:, matching.first_target :]
        matrix = share.new_zeros(*taking_in.shape[:2], matching.merged)
        matrix.scatter_(1, matching.into[:, None], share[:, None])
        taking_in.baddbmm_(matrix, moves)
    else:  # no time is spent on the others
        kept.flatten(0, 1).index_add_(0, given.rows.flatten(), (moves * share[..., None]).flatten(0, 1))
    return kept


def move_targets(x: Pair, rows: Tensor, among: Tensor) -> Tensor:
    """`average` that touches no row but the targets'; a target is made once for every source of it, to the same bits.

    No gradient would be right, for it would count a target once for each of its sources.
    """
    kept, source = x
    target = take_rows(kept, rows)
    moves = source - target
    kept.flatten(0, 1).index_copy_(0, rows.flatten(), target.baddbmm_(among, moves).flatten(0, 1))
    return kept


def group_max(x: Tensor, matching: Matching) -> Tensor:
    """(B, N, C) rows -> (B, M, C) the largest value per channel in each group."""
    kept, source = take_groups(x, matching)
    index = matching.target[..., None].expand(-1, -1, x.shape[2])
    return kept.scatter_reduce(1, index, source, "amax")


def mlerp(x: Tensor, matching: Matching, weight: Tensor | None = None) -> Tensor:
    """(B, N, C) rows -> (B, M, C): the direction of each group's mean, the largest norm in the group.

    ToFu (Kim et al., WACV 2024): an average alone shrinks what it averages. A lone row is copied bit for bit;
    rows that cancel out (norm of the mean below 1e-6) give a finite result. weight: (B, N) of the mean; None: plain.
    """
    (kept, source), first = take_groups(x, matching), matching.first_target
    dtype = torch.promote_types(x.dtype, torch.float32)

    def norms(rows: Tensor) -> Tensor:
        return torch.linalg.vector_norm(rows, dim=2, dtype=dtype)

    before = kept.clone() if kept.requires_grad else kept  # it is written over
    longest = norms(before[:, first:]).scatter_reduce(1, matching.into, norms(source), "amax")
    weights = None if weight is None else take_groups(weight, matching)
    own = 1 if weights is None else weights[0][:, first:].clone()
    mean, total = mean_groups((kept, source), matching, weights)
    scale = longest / norms(mean[:, first:]).clamp(min=1e-6)
    scale = scale.masked_fill(total[:, first:] == own, 1)[..., None]
    if scale.requires_grad:
        return torch.cat([mean[:, :first], (mean[:, first:] * scale).to(x.dtype)], dim=1)
    mean[:, first:].mul_(scale)
    return mean
