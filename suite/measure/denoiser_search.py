"""Cost of a denoiser over the share of their own tokens that its blocks lose."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor, nn

from suite.attachment.branch_handle import BlockPlan, BranchHandle, schedule_of, trace_of
from suite.backbones.branched import DenoiserFamily
from suite.backbones.diffusers_blocks import DiffusersFamily
from suite.measure.denoiser_formula import denoiser_macs
from suite.measure.formula import base_macs
from suite.measure.rate_search import Search
from suite.rates.rate import FractionPerBlock, Rate
from suite.rates.schedule import Schedule
from suite.reducers.base import Reducer

STEPS = 1000


class DenoiserSearch(Search):
    """A step is a thousandth of the tokens of every block in the model's scope."""

    family: DenoiserFamily[Any]

    def __init__(self, model: nn.Module, reducer: Reducer, images: Tensor | None = None) -> None:
        """RequestError for a method that does not act in branches."""
        super().__init__(model, reducer, images)
        self.handle = BranchHandle(self.model, self.family, reducer, None)

    def rate(self, step: int) -> Rate:
        return FractionPerBlock(step / STEPS)

    def plans(self, step: int) -> list[BlockPlan]:
        """What is taken out in every block; nothing where a step is less than a token."""
        return self.handle.plans_at(self.rate(step), self.family.image_size(self.model))

    def schedule(self, step: int) -> Schedule:
        return schedule_of(self.plans(step), self.family.num_prefix)

    def closed_form(self, step: int) -> int:
        """Of the plans, without what the method itself computes."""
        size, keys_values = self.family.image_size(self.model), self.reducer.keys_values
        counts = [self.fewer(plan) for plan in self.plans(step)]
        if isinstance(self.family, DiffusersFamily):
            text: int = self.model.bare_call.length  # type: ignore[union-attr,assignment]
            return denoiser_macs(self.family, self.model, size, text, counts, keys_values)
        prefix = self.family.num_prefix
        tokens = (plan.grid[0] * plan.grid[1] + prefix for plan in self.plans(step))
        traces = [trace_of(count, fewer, keys_values) for count, fewer in zip(tokens, counts, strict=True)]
        return base_macs(self.layout, traces).total

    def fewer(self, plan: BlockPlan) -> dict[str, int]:
        """Tokens of the branches that run on fewer."""
        left = plan.grid[0] * plan.grid[1] + self.family.num_prefix - plan.amount
        branches = ("self",) if self.reducer.keys_values else self.handle.scope.branches
        return dict.fromkeys(branches, left) if plan.amount else {}

    def macs(self, step: int) -> int:
        return super().macs(step if any(self.schedule(step).amounts) else 0)

    def strongest(self) -> int:
        """The first step that takes out as much as can be taken out."""
        return self._strongest

    @cached_property
    def _strongest(self) -> int:
        most = self.schedule(STEPS - 1)
        low, high = 0, STEPS - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.schedule(middle) == most else (middle, high)
        return high
