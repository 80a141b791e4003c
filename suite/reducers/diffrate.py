"""DiffRate: so many tokens pruned and so many merged in every block, as a plan says."""

import warnings
from itertools import pairwise

import torch

from suite.reducers.base import Reducer, register
from suite.reducers.learned_counts import LearnedCounts, merge_softly
from suite.reducers.score_predictor import straight_through
from suite.tokens.grouping import (
    Matching,
    ones_of_groups,
    plain_mean,
    rank,
    sum_groups,
    take_groups,
    take_rows,
    with_prefix,
)
from suite.tokens.layout import Layout
from suite.tokens.matching import normalize
from suite.tokens.products import cosines
from suite.tokens.ranking import ranked_rows

SMALLEST_SIZE = 1e-6  # sizes shrink by negative cosines; the logarithm of one at or below zero is no bias
LEARNED = ("targets", "prune_kept", "merge_kept")


@register("diffrate")
class DiffRate(Reducer):
    """Drop the least attentive patches, then merge the next ones into their most similar among the rest.

    Source: Chen et al., ICCV 2023, arXiv 2305.17997. Every block sorts its patches by class attention, drops what is
    beyond its first number, and sends what is beyond its second to the most similar (cosine) of those before it. The
    mean is plain, but a token that is merged brings only its size times that cosine, so sizes are no integers; they
    bias attention. How many, in every block, is learned under a FLOPs target; the lists are the plan. With a rate
    instead, half of what each block takes out is pruned and half is merged (ours: an unlearned plan).

    A weights file holds plans: `targets` (T,) the changes of FLOPs that they were learned for, the weakest first,
    `prune_kept` and `merge_kept` (T, L). plan=1 is the first of them; flops=-35% takes the one that comes nearest.

    In training all patches stay, and those pruned or merged away are masked; the rate only has to call every block, as
    r=1 does. The numbers are `LearnedCounts`, a loss has to hold `expected_macs` at the target, and `kept_plan` is what
    was learned. Where one number undercuts another, the gradients of cost and of masks go to both as if each were the
    smaller: else one above what is left would never come down again. What a merged token brings to a size is at least 1
    in training (in evaluation its size times the cosine), so merged tokens weigh a little more there.

    prune_kept, merge_kept: tokens that stay after pruning and after merging, one number a block, all prefix tokens
        (class, distillation, register) counted; a number at or above what is there takes nothing out.
    step: distance of the counts that training chooses among.
    """

    rates = ("r",)
    needs_class_token = True
    learned = "rates"
    exact_groups = False
    proportional_attention = weighted_pooling = True
    layout: Layout  # of the model that it was last built for

    def __init__(self, prune_kept: list[int] | None = None, merge_kept: list[int] | None = None, step: int = 4) -> None:
        super().__init__()
        if (prune_kept is None) != (merge_kept is None):
            raise ValueError("a plan is two lists; give both prune_kept and merge_kept, or a rate instead")
        given = checked("prune_kept", prune_kept), checked("merge_kept", merge_kept)
        if prune_kept is not None and len(given[0]) != len(given[1]):
            lengths = f"{len(given[0])} and {len(given[1])}"
            raise ValueError(f"prune_kept and merge_kept list {lengths} blocks; give one number a block in both")
        if step < 1:
            raise ValueError(f"step={step} is no distance of counts; give 1 or more")
        self.given = None if prune_kept is None else given
        self.step = step
        self.prune_counts: LearnedCounts | None = None
        self.merge_counts: LearnedCounts | None = None
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

    @property
    def soft(self):
        return self.training

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

    def build(self, layout, stages):
        """What training needs to know, and, where no plan is there, the distributions that it learns."""
        self.layout = layout
        if self.has_fixed_schedule or self.num_learned_schedules:
            return
        if self.prune_counts is None:
            made = [LearnedCounts(layout.depth, layout.num_patches, self.step) for _ in range(2)]
            self.prune_counts, self.merge_counts = made
        elif (len(self.prune_counts.logits), self.prune_counts.patches) != (layout.depth, layout.num_patches):
            raise ValueError(f"its rates are another model's; this one has {layout.depth} blocks")

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

    def after_attention(self, tokens, signals, amount):
        if self.training:
            return self.take_out_softly(tokens, signals)
        prefix = tokens.num_prefix
        after_pruning, after_merging = self.kept(signals, tokens.count, amount)
        order = ranked_rows(signals.class_attention, prefix)[:, : after_pruning - prefix]
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

    def take_out_softly(self, tokens, signals):
        """All tokens, with masks of what is pruned and merged; each patch learns at its place by class attention."""
        prefix, sizes = tokens.num_prefix, tokens.sizes
        policy = torch.ones_like(sizes) if tokens.policy is None else tokens.policy
        with torch.no_grad():  # what went before ranks last
            order = rank(signals.class_attention.masked_fill(policy == 0, -1), prefix)
            place = order.argsort(dim=1)
        after_pruning, after_merging = (stays[place].to(sizes.dtype) for stays in self.stays(signals, tokens))
        left = policy[:, prefix:] * after_pruning
        staying = left * after_merging
        x, size = merge_softly(tokens.x[:, prefix:], sizes[:, prefix:], staying, left - staying)
        policy, x, size = (
            torch.cat([before[:, :prefix], patches], dim=1)
            for before, patches in ((policy, staying), (tokens.x, x), (sizes, size))
        )
        return tokens.mask(policy, x, size)

    def stays(self, signals, tokens):
        """For pruning and for merging, (T,) 1 where the first, second, ... most attentive patch stays in this block."""
        plan = self.plan(signals.plan)
        if plan is not None:
            place = torch.arange(tokens.num_prefix, tokens.count, device=tokens.x.device)
            return [place < kept[signals.block] for kept in plan]
        both = self.learned_counts
        if both[0].patches != tokens.num_patches:
            raise ValueError(
                f"its rates are of {both[0].patches} patches, the image has {tokens.num_patches}; "
                "train at the model's own image size"
            )
        return [counts.stays(signals.block) for counts in both]

    @property
    def learned_counts(self):
        """Those of pruning and of merging. ValueError where a plan is followed and none is learned."""
        if self.prune_counts is None or self.merge_counts is None:
            raise ValueError("no rates are learned here; attach it to a model at a rate such as r=1")
        return self.prune_counts, self.merge_counts

    def expected_kept(self):
        """Tokens that stay after pruning and after merging, prefix counted: two (L,) float64, with their gradient."""
        if self.given is not None:
            return [torch.tensor(kept, dtype=torch.float64) for kept in self.given]
        return [counts.expected() + self.layout.num_prefix for counts in self.learned_counts]

    def expected_macs(self):
        """() float64 multiply-accumulates of an image, with their gradient; the method's own few are left out."""
        prune_kept, merge_kept = self.expected_kept()
        counts = [prune_kept.new_tensor(self.layout.tokens)]
        for kept in zip(prune_kept, merge_kept):
            counts.append(least(counts[-1], *kept))
        return closed_form(self.layout, counts)

    @property
    def baseline_macs(self):
        """Multiply-accumulates of an image where nothing is taken out."""
        return closed_form(self.layout, [self.layout.tokens] * (self.layout.depth + 1))

    def kept_plan(self):
        """prune_kept and merge_kept as learned so far, two lists of whole numbers: the options of evaluation."""
        prune_kept, merge_kept = self.expected_kept()
        return [int(kept) for kept in prune_kept], [int(kept) for kept in merge_kept]

    def learned_state(self, target):
        """What a weights file holds of the plan learned so far, for a `target` such as -0.35; see `together`."""
        prune_kept, merge_kept = self.kept_plan()
        values = torch.tensor([target], dtype=torch.float64), torch.tensor([prune_kept]), torch.tensor([merge_kept])
        return dict(zip(LEARNED, values))


def together(*states):
    """Several `learned_state` as one, the weakest plan first."""
    ordered = sorted(states, key=lambda state: -float(state["targets"][0]))
    return {name: torch.cat([state[name] for state in ordered]) for name in LEARNED}


def least(*numbers):
    """The smallest of some numbers, with a gradient for all (straight-through)."""
    return straight_through(torch.stack(numbers).amin(), sum(numbers))


def closed_form(layout, counts):
    """Multiply-accumulates of an image whose blocks tokens enter and leave by `counts` (numbers, one more than blocks).

    Attention runs on what enters, the MLP on what leaves.
    """
    macs = layout.patch_macs + layout.head_macs + layout.head_token_macs * counts[-1]
    for entering, leaving in pairwise(counts):
        macs = macs + entering * (layout.qkv_macs + layout.proj_macs) + leaving * layout.mlp_macs
        macs = macs + 2 * entering * entering * (layout.heads * layout.head_dim)
    return macs


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
    if size.device.type != "cpu" or not len(size) or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    lowest = float(size.min())
    if lowest <= 0:
        warnings.warn(
            f"DiffRate merged tokens of opposite direction: a size of {lowest:.3g} was raised to {SMALLEST_SIZE:g}",
            stacklevel=2,
        )
