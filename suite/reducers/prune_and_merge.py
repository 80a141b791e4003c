"""Prune-and-Merge: every block runs on a few mixtures of patches, which are the same for all images."""

import re
from functools import partial
from typing import cast

from torch import Tensor, nn

from suite.reducers.base import Reducer, register
from suite.tokens.segments import SegmentPlan, even_merge


class Matrices(nn.Module):
    """A `SegmentPlan` of which the matrices learn."""

    alive: Tensor
    part: Tensor

    def __init__(self, plan: SegmentPlan) -> None:
        super().__init__()
        self.merge, self.recover = nn.Parameter(plan.merge.clone()), nn.Parameter(plan.recover.clone())
        self.register_buffer("alive", plan.alive.clone())
        self.register_buffer("part", plan.part.clone())


@register("prune_and_merge")
class PruneAndMerge(Reducer):
    """A matrix makes few tokens of all, the block runs on them, another matrix gives all back; pruned ones pass it by.

    Source: Mao et al., 2025, arXiv 2503.23455: x becomes R block(M x) + (1 - k) x, with k 1 but for pruned patches.
    A row of M is a segment of the raster order around an important patch, weighted by importance, and R is M's
    pseudo-inverse; importance comes from gradients on a calibration set, and both matrices learn from there on: `train
    prune_and_merge` does both, `suite.tokens.segments.plan_blocks` makes a plan of importance that a user has. Blocks
    that no matrices are stored for run on all tokens.

    When: there is a plan from a calibration set, and every patch is needed after every block, as in dense tasks.

    A weights file holds, for every block that is reduced, `blocks.L.merge` (c, N), `.recover` (N, c), `.alive` (N,) and
    `.part` (N,) int64, the row that each token lies in; plan=1 is what it does. Without one, keep=0.6 makes segments of
    even length, around so many of the patches as are kept, and nothing is pruned (ours: an unlearned plan).
    """

    rates = ("keep",)
    learned = "plan"
    exact_groups = False
    reads_sizes = False
    restores_per_block = True

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict()

    @property
    def num_learned_schedules(self):
        return int(len(self.blocks) > 0)

    @property
    def trained(self):
        return self.num_learned_schedules > 0

    def follow(self, plans):
        """Take `SegmentPlan`s by the numbers of their blocks; the rate plan=1 is them from here on."""
        self.blocks = nn.ModuleDict({str(block): Matrices(plan) for block, plan in plans.items()})

    def prepare(self, state):
        """Take the plan of a weights file. ValueError, in one line, for matrices that do not go together."""
        plans = {}
        for key in state:
            if found := re.fullmatch(r"blocks\.(\d+)\.merge", key):
                names = [f"blocks.{found[1]}.{name}" for name in SegmentPlan._fields]
                if lacking := [name for name in names if name not in state]:
                    raise ValueError(f"it has {key}, but no {lacking[0]}")
                plan = SegmentPlan(*(state[name] for name in names))
                tokens = plan.merge.shape[-1]
                if [tuple(part.shape) for part in plan[1:]] != [plan.merge.T.shape, (tokens,), (tokens,)]:
                    raise ValueError(f"the shapes of block {found[1]} do not go together")
                plans[int(found[1])] = plan
        self.follow(plans)

    def learned_schedule(self, depth, tokens, num_prefix, plan=None, restored_per_block=False):
        amounts = [0] * depth
        for block, matrices in self.blocks.items():
            left, whole = cast(Matrices, matrices).merge.shape
            if int(block) >= depth or whole != tokens:
                raise ValueError(
                    f"its matrices of block {block} are of {whole} tokens; the model has {depth} blocks and {tokens} "
                    "tokens, so it was learned for another"
                )
            amounts[int(block)] = tokens - left
        return amounts

    def before_block(self, tokens, signals, amount):
        prefix, columns = tokens.num_prefix, signals.grid[1]
        if len(self.blocks):
            learned = cast(Matrices, self.blocks[str(signals.block)])
            merge: Tensor = learned.merge
            part = learned.part[prefix:] - prefix
            back = partial(self, "give_back", tokens.x, learned.recover, (1 - learned.alive)[:, None])
        else:
            merge = even_merge(
                tokens.num_patches, tokens.num_patches - amount, columns, prefix, tokens.x.dtype, tokens.x.device
            )
            part = merge[prefix:, prefix:].argmax(0)
            back = partial(self, "give_back", tokens.x, (merge / merge.sum(1, keepdim=True)).T, None)
        x = merge @ tokens.x
        return tokens.assign(x[:, prefix:], part.expand(len(x), -1), back=back).with_features(x)

    def give_back(self, entered, recover, passing, left):
        """What left the block (B, c, C) -> all tokens (B, N, C); `passing` (N, 1) is 1 for those of before."""
        x = recover @ left
        return x if passing is None else x + passing * entered
