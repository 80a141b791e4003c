"""The tokens that travel through a backbone, and the algebra that all reducers share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from suite.errors import RequestError
from suite.tokens.attention_bias import SMALLEST_SIZE, bias_of_policy, bias_of_sizes
from suite.tokens.constants import first_rows, positions
from suite.tokens.grouping import (
    Matching,
    flat_index,
    full_precision,
    group_mean,
    in_batch,
    mean_groups,
    ones_of_groups,
    rank,
    sum_groups,
    take,
    take_groups,
    take_rows,
    with_prefix,
)
from suite.tokens.history import Restore, SoftStep, Step, compose_owner, rows_to_restore
from suite.tokens.places import Places
from suite.tokens.sample_rng import fingerprint

__all__ = ["SMALLEST_SIZE", "Matching", "Step", "Tokens", "flat_index", "full_precision", "rank", "take"]


@dataclass(frozen=True)
class Tokens:
    """The state between two blocks.

    x: (B, N, C) features, prefix tokens (class, distillation, register) first.
    num_prefix: how many prefix tokens there are; no operation removes or merges them.
    origin: N0, the number of tokens that entered the first block.
    size: (B, N) float32 (float64 in a float64 model), original tokens that each token stands for; None while all are 1.
    valid: (B, N) bool, False where a place is padding that nobody attends to; None while there is none.
    active: tokens, from the first, that soft merging still matches; None unless tokens are merged softly.
    policy: (B, N) float32 at least, 0 where a token was pruned but stays to be learned from, else 1; None: none was.
    flows: with 'at_end', what undoes each soft merge, in order: features (B, N, C) after it to those before it.
    restoring: 'at_end' where all tokens are to be given back after the last block, 'per_block' after every block.
    residual: (B, N0, C) with 'per_block', once this block took tokens out: the residual stream of all of them.
    back: what gives (B, N0, C) of all for the features that leave the block, in place of `residual`.
    counted: sizes are kept up in `size`; False: nobody goes by them, and `sizes` counts owners when it is asked.
    key: (B, 1) int64 what each sample's random draws are seeded by; None until somebody draws.
    places: where they are in the image; None where blocks do not go by that. carried: see `Reducer.begin`.
    """

    x: Tensor
    num_prefix: int
    origin: int
    size: Tensor | None = None
    steps: tuple[Step, ...] = ()
    valid: Tensor | None = None
    active: int | None = None
    policy: Tensor | None = None
    flows: tuple[Restore, ...] = ()
    back: Restore | None = None
    restoring: str | None = None
    residual: Tensor | None = None
    counted: bool = True
    key: Tensor | None = None
    places: Places | None = None
    carried: tuple[Tensor, ...] = ()

    @classmethod
    def start(cls, x: Tensor, num_prefix: int, restoring: str | None = None, counted: bool = True) -> Tokens:
        return cls(x, num_prefix, origin=x.shape[1], restoring=restoring, counted=counted)

    @property
    def count(self) -> int:
        """N, prefix tokens and padding included."""
        return int(self.x.shape[1])  # a tracer hands out sizes as tensors

    @property
    def num_patches(self) -> int:
        return self.count - self.num_prefix

    @property
    def sizes(self) -> Tensor:
        """(B, N) float32 at least, ones where no merge has happened yet."""
        if self.size is not None:
            return self.size
        dtype = torch.promote_types(self.x.dtype, torch.float32)
        owner = None if self.counted or not self.steps else self.owner
        if owner is None:
            return torch.ones(self.x.shape[:2], device=self.x.device, dtype=dtype)
        sizes = torch.zeros(self.x.shape[0], self.count + 1, device=self.x.device, dtype=dtype)
        return sizes.scatter_add(1, owner % (self.count + 1), torch.ones_like(owner, dtype=dtype))[:, :-1]

    def with_sizes(self) -> Tokens:
        """The same with `size` where it was not kept up."""
        return self if self.counted or not self.steps else replace(self, size=self.sizes, counted=True)

    def with_key(self, normed: Tensor) -> Tokens:
        """The same with a `key`: what they had, or the fingerprint of their normed features (B, N, C)."""
        return self if self.key is not None else replace(self, key=fingerprint(normed[:, self.num_prefix :]))

    @property
    def counts(self) -> Tensor:
        """(B,) int64: tokens of each sample, padding left out."""
        if self.valid is not None:
            return self.valid.sum(1)
        return torch.full((self.x.shape[0],), self.count, device=self.x.device)

    @property
    def soft(self) -> bool:
        """Tokens were merged or pruned softly (training): all are there still, and nobody owns anything."""
        return self.active is not None or self.policy is not None

    @property
    def presence(self) -> Tensor | None:
        """(B, N) 1 for what takes part, 0 for padding and what was pruned softly; None while all tokens take part."""
        return self.policy if self.valid is None else self.valid.to(self.sizes.dtype)

    @property
    def owner(self) -> Tensor | None:
        """(B, N0) int64: the token that each original token ended in, -1 = dropped; None after soft steps."""
        if self.soft:
            return None
        return compose_owner(self.x, self.origin, self.steps)

    @property
    def log_size(self) -> Tensor | None:
        """(B, 1, 1, N) bias of proportional attention (`bias_of_sizes`) in x's dtype; None while sizes are 1."""
        return None if self.size is None else bias_of_sizes(self.size, self.x.dtype, self.soft, self.valid is not None)

    @property
    def log_policy(self) -> Tensor | None:
        """(B, 1, N, N) additive bias in x's dtype that keeps attention off pruned tokens (`bias_of_policy`)."""
        return None if self.policy is None else bias_of_policy(self.policy, self.x.dtype)

    def attention_bias(self, proportional: float) -> Tensor | None:
        """What is added to attention logits: `proportional` (1, 0, -1) times log size, -inf on padding; None: nothing.

        (B, 1, 1, N); after soft pruning (B, 1, N, N), with `log_policy`.
        """
        bias, policy = self.log_size if proportional else None, self.log_policy
        bias = -bias if bias is not None and proportional < 0 else bias
        if policy is not None:
            bias = policy if bias is None else bias + policy
        if self.valid is None:
            return bias
        closed = torch.zeros_like(self.valid, dtype=self.x.dtype).masked_fill(~self.valid, -torch.inf)[:, None, None]
        return closed if bias is None else bias + closed

    def with_features(self, x: Tensor) -> Tokens:
        return replace(self, x=x)

    def add(self, branch: Tensor) -> Tokens:
        """What a block's attention or MLP (B, N, C) adds to the residual stream, also of all that have owners."""
        if self.residual is None:
            return self.with_features(self.x + branch)
        return replace(self, x=self.x + branch, residual=self.residual + self.spread(branch))

    def spread(self, values: Tensor) -> Tensor:
        """(B, N, ...) values of tokens -> (B, N0, ...) those of their owners, 0 for tokens without one."""
        owner = self.owner
        if owner is None:
            raise ValueError("tokens were merged softly (training); no token has one owner")
        spread = take(values, owner.clamp(min=0))
        return spread.masked_fill((owner < 0).view(*owner.shape, *[1] * (values.dim() - 2)), 0)

    def pass_on(self, values: Tensor, shared: bool = False) -> Tensor:
        """(B, N, ...) values of tokens at the end of a block -> those of the tokens that enter the next block.

        The same, but with 'per_block' those of their owners (`spread`); shared: each an equal share of its owner's.
        """
        if self.residual is None:
            return values
        sizes = self.sizes.view(*self.sizes.shape, *[1] * (values.dim() - 2))
        return self.spread(values / sizes if shared else values)

    def give_back(self) -> Tokens:
        """All original tokens, with what their owners' branches added to them, as if nothing had been taken out.

        Raises ValueError after soft pruning, RequestError after soft merging.
        """
        if self.policy is not None:
            raise ValueError("tokens were pruned softly (training); they cannot be restored")
        if self.active is not None:
            raise RequestError("tokens were merged softly (training); use restore=before_decoder, not per_block")
        x = self.back(self.x) if self.back is not None else self.x if self.residual is None else self.residual
        start, places = Tokens.start(x, self.num_prefix, self.restoring, self.counted), self.places
        return replace(start, places=places and places.anew())

    def _after(self, step: Step, x: Tensor, size: Tensor | None, valid: Tensor | None, lost: int | None = 0) -> Tokens:
        """The tokens after a step that drops `lost` of a sample (None: unknown); what giving back needs is kept."""
        if self.restoring == "at_end" and lost != 0:
            step = step.freezing(self.x, lost)
        residual = self.x if self.restoring == "per_block" and self.residual is None else self.residual
        places, steps = self.places and self.places.after(step, self.num_prefix, x.shape[1]), (*self.steps, step)
        return replace(self, x=x, size=size, valid=valid, steps=steps, residual=residual, places=places)

    def keep(self, index: Tensor, fused: Tensor | None = None, valid: Tensor | None = None) -> Tokens:
        """Keep the prefix tokens and `index` (B, K: positions, in their new order), drop the others.

        `fused` (B, 1, C) is appended as a last token that stands for all that is dropped and owns it. `valid` (B, K)
        bool marks with False what only pads a sample to K tokens; its position may be any.
        """
        if valid is None:
            return self.keep_rows(in_batch(index, self.count), fused)
        prefix = positions(0, self.num_prefix, 1, index.device).expand(index.shape[0], -1)
        kept = torch.cat([prefix, index], dim=1)
        valid = torch.cat([torch.ones_like(prefix, dtype=torch.bool), valid], dim=1)
        size = take(self.sizes, kept) * valid if self.counted else None
        step = Step(self.count, kept.masked_fill(~valid, self.count))
        return self._after(step, take(self.x, kept), size, valid, lost=None)

    def keep_rows(self, rows: Tensor, fused: Tensor | None = None) -> Tokens:
        """`keep` of `rows` (B, K) of the flattened batch."""
        room = [] if fused is None else [first_rows(rows.shape[0], self.count, 0, rows.device)]
        places = with_prefix(self.count, self.num_prefix, rows, *room)
        x = take_rows(self.x, places)
        size = None if self.size is None else take_rows(self.size, places)
        kept = places if fused is None else places[:, :-1]
        if fused is not None:
            x[:, -1:].copy_(fused)
            if self.counted:
                survived = take_rows(self.sizes, kept)
                gone = self.sizes.sum(1, keepdim=True) - survived.sum(1, keepdim=True)
                size = torch.cat([survived, gone], dim=1)
        lost, rest = (self.count - kept.shape[1], -1) if fused is None else (0, kept.shape[1])
        step = Step(self.count, matching=Matching.of_rows(kept, rows[:, :0], rows[:, :0], self.count), rest=rest)
        return self._after(step, x, size, None, lost)

    def merge(
        self,
        matching: Matching,
        weight: Tensor | None = None,
        x: Tensor | None = None,
        size: Tensor | None = None,
        plain: bool = False,
        pruned: Tensor | None = None,
    ) -> Tokens:
        """Make one token of every group, by default ToMe's average: x' = sum(s x) / sum(s), s' = sum(s) (section 3).

        weight: (B, N) what features are averaged by; default the sizes. plain: all alike. x: (B, M, C) features of the
        groups where they are no weighted average. size: (B, M) of the groups where theirs are no sums. A token alone in
        its group is copied bit for bit. Tokens that are neither kept nor a source are dropped. pruned: (B, 1) bool,
        samples whose sources are dropped, too; with it, features are averages by size or, plain, of tokens alike.
        """
        if matching.merged == 0:
            return self
        if x is None and weight is None and not (plain and pruned is None):
            known = None if plain else self.size if self.counted else self.sizes  # None: all are 1
            weights = None if known is None else take_groups(known, matching)
            if pruned is not None:
                own, others = weights or ones_of_groups(matching, self.x)
                weights = own, others.masked_fill(pruned, 0)
            x, size = mean_groups(take_groups(self.x, matching), matching, weights)
        elif x is None:
            x = group_mean(self.x, matching, None if plain else weight)
        if self.counted and size is None:
            parts = ones_of_groups(matching, self.x) if self.size is None else take_groups(self.size, matching)
            size = sum_groups(parts, matching)
        lost = self.count - matching.shape[1] - (0 if pruned is not None else matching.merged)
        step = Step(self.count, matching=matching, pruned=pruned)
        return self._after(step, x, size if self.counted else None, self.valid, lost)

    def assign(self, x: Tensor, target: Tensor, valid: Tensor | None = None, back: Restore | None = None) -> Tokens:
        """Replace all patch tokens by new ones.

        x: (B, M, C) the new patch tokens. target: (B, N - num_prefix) in [0, M), which of them every patch token counts
        as part of, of a mixture that of its largest share. valid: (B, M) bool, False on what only pads a sample to M.
        back: gives all tokens back at the end of the block in its own way.
        """
        prefix, batch = self.num_prefix, x.shape[0]
        fixed = positions(0, prefix, 1, target.device).expand(batch, -1)
        assigned = torch.cat([fixed, prefix + target], dim=1)
        x = torch.cat([self.x[:, :prefix], x.to(self.x.dtype)], dim=1)
        size = None
        if self.counted:
            size = torch.zeros(x.shape[:2], device=x.device, dtype=self.sizes.dtype)
            size = size.scatter_add(1, assigned, self.sizes)
        if valid is not None:
            valid = torch.cat([torch.ones_like(valid[:, :1]).expand(-1, prefix), valid], dim=1)
        after = self._after(Step(self.count, assigned=assigned), x, size, valid)
        return after if back is None else replace(after, back=back, residual=None)

    def soften(self, x: Tensor, size: Tensor, active: int, flow: SoftStep | None = None) -> Tokens:
        """As many tokens, of real-valued sizes and in another order; from here on nobody owns anything. Without `flow`,
        which gives features back to those before and says where they were, none are restored and all keep order."""
        flows = (*self.flows, flow.restore) if flow is not None and self.restoring == "at_end" else self.flows
        places = self.places and (self.places.reordered(flow.origin()) if flow is not None else self.places)
        return replace(self, x=x, size=size, active=active, flows=flows, places=places)

    def mask(self, policy: Tensor, x: Tensor | None = None, size: Tensor | None = None) -> Tokens:
        """As many tokens, of which those with a `policy` (B, N) of 0 are pruned softly; nobody owns anything. x, size:
        features and sizes from here on; default what they are."""
        return replace(self, policy=policy, x=self.x if x is None else x, size=self.size if size is None else size)

    def expand(self, x: Tensor | None = None) -> Tensor:
        """Give every original token the features (B, N0, C) of the token that owns it.

        After soft merging: the mixture of those that it flowed into, by its shares in them, which sum to 1. Raises
        ValueError where a token was dropped and nobody owns it, after soft merging unless tokens were started with
        restoring='at_end', and after soft pruning.
        """
        x, owner = self.x if x is None else x, self.owner
        if self.policy is not None:
            raise ValueError("tokens were pruned softly (training); they cannot be restored")
        if owner is None and not self.flows:
            raise ValueError("tokens were merged softly (training) and not started with restoring='at_end'")
        if owner is None:
            for flow in reversed(self.flows):
                x = flow(x)
            return x
        if bool((owner < 0).any()):
            raise ValueError("some tokens were dropped without an owner; they cannot be restored")
        return take(x, owner)

    def restorable(self) -> tuple[Tensor, Tensor]:
        """What every original token is given back from: rows (B, R, C) and, for each, its row (B, N0).

        Rows are the tokens themselves and, after them, what each token without an owner was when it was dropped: it
        keeps the value that it had then. Raises ValueError unless tokens were started with restoring='at_end', and
        after soft steps.
        """
        if self.restoring != "at_end" or self.soft:
            raise ValueError("tokens were not started to be restored, or were merged or pruned softly (training)")
        return rows_to_restore(self.x, self.origin, self.steps)
