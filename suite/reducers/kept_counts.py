"""What methods share that follow a plan: so many tokens left after pruning and after merging, in every block."""

import warnings
from itertools import pairwise

import torch

from suite.reducers.base import Reducer
from suite.tokens.grouping import (
    Matching,
    ones_of_groups,
    plain_mean,
    sum_groups,
    take_groups,
    take_rows,
    with_prefix,
)
from suite.tokens.matching import normalize
from suite.tokens.products import cosines
from suite.tokens.ranking import ranked_rows

SMALLEST_SIZE = 1e-6  # sizes shrink by negative cosines; the logarithm of one at or below zero is no bias
LEARNED = ("targets", "prune_kept", "merge_kept")


class KeptCounts(Reducer):
    """Drops the last patches of an order and merges those before them into their most similar among the rest.

    Source: DiffRate (Chen et al., ICCV 2023, arXiv 2305.17997). How many are left of either is a plan's: two lists,
    given as options or read from a weights file. With a rate instead, half of what a block takes out is pruned and half
    is merged (ours).
    """

    rates = ("r",)
    needs_class_token = True
    learned = "rates"
    exact_groups = False
    proportional_attention = weighted_pooling = True

    def __init__(self, prune_kept: list[int] | None = None, merge_kept: list[int] | None = None) -> None:
        super().__init__()
        if (prune_kept is None) != (merge_kept is None):
            raise ValueError("a plan is two lists; give both prune_kept and merge_kept, or a rate instead")
        given = checked("prune_kept", prune_kept), checked("merge_kept", merge_kept)
        if prune_kept is not None and len(given[0]) != len(given[1]):
            lengths = f"{len(given[0])} and {len(given[1])}"
            raise ValueError(f"prune_kept and merge_kept list {lengths} blocks; give one number a block in both")
        self.given = None if prune_kept is None else given
        self.lists = ()
        for name in LEARNED:
            self.register_buffer(name, None)

    @property
    def has_fixed_schedule(self):
        return self.given is not None

    @property
    def num_learned_schedules(self):
        return len(self.lists)

    @property
    def trained(self):
        return self.has_fixed_schedule or self.num_learned_schedules > 0 or self._trained

    def prepare(self, state):
        """Take the plans of a weights file. ValueError, in one line, for what is none."""
        if self.has_fixed_schedule or not all(name in state for name in LEARNED):
            return
        check_plans(*(state[name] for name in LEARNED))
        for name in LEARNED:
            setattr(self, name, state[name].clone())
        self.read_lists()

    def mark_trained(self):
        """Called when tensors have been loaded: plans may be among them."""
        super().mark_trained()
        self.read_lists()

    def read_lists(self):
        """The plans as numbers: a forward is not to wait for a device to tell them."""
        if self.targets is not None:
            lists = (tuple(map(tuple, getattr(self, name).tolist())) for name in LEARNED[1:])
            self.lists = tuple(zip(*lists))

    def plan(self, number):
        """The two lists of a learned plan, from 1; None: those given as options, or None."""
        return self.given if number is None else self.lists[number - 1]

    def learned_schedule(self, depth, tokens, num_prefix, plan=None, restored_per_block=False):
        prune_kept, merge_kept = self.plan(plan)
        if len(prune_kept) != depth:
            raise ValueError(f"prune_kept lists {len(prune_kept)} blocks, but the model has {depth}; list them all")
        amounts, count = [], tokens
        for block, kept in enumerate(map(min, prune_kept, merge_kept)):
            if kept <= num_prefix:
                raise ValueError(
                    f"the plan keeps {kept} tokens in block {block}, of which {num_prefix} are prefix tokens; "
                    f"keep at least {num_prefix + 1}"
                )
            count = tokens if restored_per_block else count
            amounts.append(max(0, count - kept))
            count -= amounts[-1]
        return amounts

    def kept(self, signals, count, amount):
        """How many of `count` tokens are left after pruning and after merging."""
        plan = self.plan(signals.plan)
        if plan is not None:
            pruned = min(count, plan[0][signals.block])
            return pruned, min(pruned, plan[1][signals.block])
        return count - amount // 2, count - amount

    def best_first(self, tokens, signals):
        """(B, T) rows of the flattened batch: patches in the order in which they stay."""
        return ranked_rows(signals.class_attention, tokens.num_prefix)

    def after_attention(self, tokens, signals, amount):
        prefix = tokens.num_prefix
        after_pruning, after_merging = self.kept(signals, tokens.count, amount)
        order = self.best_first(tokens, signals)[:, : after_pruning - prefix]
        if after_merging == after_pruning:
            return tokens.keep_rows(order)
        hosts, sources = order[:, : after_merging - prefix], order[:, after_merging - prefix :]
        kept = with_prefix(tokens.count, prefix, hosts)
        x = take_rows(tokens.x, kept), take_rows(tokens.x, sources)
        cosine, to = most_similar(x[1], x[0], prefix)
        matching = Matching.of_rows(kept, sources, to, tokens.count, prefix)
        sizes = ones_of_groups(matching, x[0]) if tokens.size is None else take_groups(tokens.size, matching)
        size = sum_groups((sizes[0], sizes[1] * cosine), matching)
        warn_if_lost(size)
        return tokens.merge(matching, x=plain_mean(x, matching), size=size.clamp_(min=SMALLEST_SIZE))


def checked(name, numbers):
    """One list of a plan as a tuple, or None."""
    if numbers is None:
        return None
    whole = isinstance(numbers, (list, tuple)) and all(type(n) is int and n > 0 for n in numbers)
    if not whole or not numbers:
        raise ValueError(f"{name}={numbers!r} is no plan; give a list of whole numbers of tokens, one a block")
    return tuple(numbers)


def check_plans(targets, prune_kept, merge_kept):
    """ValueError unless these tensors of a weights file are plans."""
    if targets.dim() != 1 or prune_kept.dim() != 2 or prune_kept.shape != merge_kept.shape or not len(targets):
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in zip(LEARNED, (targets, prune_kept, merge_kept)))
        raise ValueError(f"its plans have shapes {shapes}; they have to be (T,), (T, L) and (T, L)")
    if len(targets) != len(prune_kept):
        raise ValueError(f"it has {len(targets)} targets for {len(prune_kept)} plans; there is one for each")
    if any(kept.is_floating_point() or int(kept.min()) < 1 for kept in (prune_kept, merge_kept)):
        raise ValueError("its plans have to be whole numbers of tokens, 1 or more")
    wanted = targets.tolist()
    if not all(-1 < target < 0 for target in wanted) or any(b >= a for a, b in pairwise(wanted)):
        raise ValueError(f"its targets {wanted} have to lie between -1 and 0 and to fall")


def most_similar(sources, kept, first):
    """Of rows `kept` (B, M, C) from `first` on, the most like each of `sources` (B, S, C): its cosine and place."""
    with torch.no_grad(), torch.autocast(kept.device.type, enabled=False):
        # cosines are divided by norms, not rows of the hosts, which are many
        single = torch.promote_types(kept.dtype, torch.float32)
        norms = torch.linalg.vector_norm(kept, dim=2, dtype=single).clamp(min=1e-12)[:, None]
        cosine = cosines(normalize(sources), kept) / norms
        return cosine[:, :, first:].max(dim=2)


def warn_if_lost(size):
    """Say where sizes had to be raised; not where asking would wait for a device or break a graph."""
    if size.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing() or not len(size):
        return
    lowest = float(size.min())
    if lowest <= 0:
        warnings.warn(
            f"tokens of opposite direction were merged: a size of {lowest:.3g} was raised to {SMALLEST_SIZE:g}",
            stacklevel=2,
        )
