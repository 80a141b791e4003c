"""DiffRate: so many tokens pruned and so many merged in every block, as a plan says."""

from itertools import pairwise

import torch

from suite.reducers.base import register
from suite.reducers.kept_counts import LEARNED, KeptCounts
from suite.reducers.learned_counts import LearnedCounts, merge_softly
from suite.reducers.score_predictor import straight_through
from suite.tokens.grouping import rank
from suite.tokens.layout import Layout


@register("diffrate")
class DiffRate(KeptCounts):
    """Drop the least attentive patches, then merge the next ones into their most similar among the rest.

    Source: Chen et al., ICCV 2023, arXiv 2305.17997. Every block sorts its patches by class attention, drops what is
    beyond its first number, and sends what is beyond its second to the most similar (cosine) of those before it. The
    mean is plain, but a token that is merged brings only its size times that cosine, so sizes are no integers; they
    bias attention. How many, in every block, is learned under a FLOPs target; the lists are the plan. With a rate
    instead, half of what each block takes out is pruned and half is merged (ours: an unlearned plan).

    When: a change of FLOPs is given and minutes of training can find out in which blocks to make it.

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

    layout: Layout  # of the model that it was last built for

    def __init__(self, prune_kept: list[int] | None = None, merge_kept: list[int] | None = None, step: int = 4) -> None:
        super().__init__(prune_kept, merge_kept)
        if step < 1:
            raise ValueError(f"step={step} is no distance of counts; give 1 or more")
        self.step = step
        self.prune_counts: LearnedCounts | None = None
        self.merge_counts: LearnedCounts | None = None

    @property
    def soft(self):
        return self.training

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

    def after_attention(self, tokens, signals, amount):
        if self.training:
            return self.take_out_softly(tokens, signals)
        return super().after_attention(tokens, signals, amount)

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
