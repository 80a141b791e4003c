"""A reducer at a rate on a denoiser: attached by hooks, while the model's own forward runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from suite.attachment.branch_hooks import BlockPlan, BranchHooks, Running
from suite.attachment.handle import Handle
from suite.backbones.block import BlockTrace
from suite.backbones.branched import BranchScope, DenoiserFamily, Grid, downsampling
from suite.errors import CellError, RequestError
from suite.rates.rate import FractionPerBlock, KeptFraction, Rate
from suite.rates.schedule import Schedule, active_blocks, check_form
from suite.reducers.base import Reducer
from suite.tokens.state import Tokens


class BranchHandle(Handle):
    """Blocks keep all their tokens; what is reduced is what enters the branches that the model's scope names.

    `token_counts` are of the tokens that a block's reduced branches ran on. branch_counts: of every block in the last
    forward, by those branches. A method that makes images smaller acts before the sampler (see
    `suite.models.drawn_smaller`), and the denoiser is called with smaller noise.
    """

    family: DenoiserFamily[Any]

    def __init__(self, model: nn.Module, family: DenoiserFamily[Any], reducer: Reducer, rate: Rate | None) -> None:
        self.scope: BranchScope = getattr(model, "branch_scope", BranchScope())
        self._plans: dict[Grid, list[BlockPlan]] = {}
        self._hooks: list[RemovableHandle] = []
        self._running: Running | None = None
        self._size: Grid | None = None
        self._traces: list[BlockTrace] = []
        self._left: Tokens | None = None
        self.branch_counts: list[dict[str, int]] = []
        self.shrinks = reducer.site == "before_embedding"
        if reducer.rates and not (reducer.acts_in_branches or self.shrinks):
            raise RequestError(
                f"reducer {reducer.name!r} needs what a block computes, but a denoiser's tokens are reduced before "
                "each branch; use tome_sd, tofu, todo, tome, random, uniform, heuristic or resize"
            )
        super().__init__(model, family, reducer, rate)
        if not self.shrinks:
            self._check_reached()

    def _check_reached(self) -> None:
        """RequestError for a rate that no block would notice."""
        if self.rate is None or self.rate.is_zero or self.reduces:
            return
        size, scope = self.family.image_size(self.model), self.scope
        full, grids = self.family.input_grid(self.model, size), self.family.grids(self.model, size)
        nearest = min(downsampling(full, grid) for grid in grids)
        remedy = "take out more"
        if nearest > scope.max_downsample:
            remedy = f"the nearest have d={nearest}: use max_downsample={nearest}"
        raise RequestError(
            f"rate '{self.rate}' with max_downsample={scope.max_downsample} reaches none of the {len(grids)} blocks; "
            f"{remedy}"
        )

    def plans(self, size: Grid) -> list[BlockPlan]:
        """What is taken out in every block, for inputs of `size` (H, W)."""
        if size not in self._plans:
            self._plans[size] = self.plans_at(self.rate, size)
        return self._plans[size]

    def plans_at(self, rate: Rate | None, size: Grid) -> list[BlockPlan]:
        """The same at another rate than the handle's own."""
        grids = self.family.grids(self.model, size)
        full, most = self.family.input_grid(self.model, size), self.scope.max_downsample
        share, chosen = (0.0, ()) if self.shrinks else share_of(rate, self.reducer, len(grids))

        def amount(block: int, grid: Grid) -> int:
            acts = block in chosen and downsampling(full, grid) <= most
            return self.reducer.amount_in_branch(share, grid) if acts else 0

        return [BlockPlan(amount(block, grid), grid) for block, grid in enumerate(grids)]

    @property
    def rate(self) -> Rate | None:
        return self._rate

    @rate.setter
    def rate(self, rate: Rate | None) -> None:
        self._rate, self._plans = rate, {}
        self.images.rate = rate

    def schedule(self, tokens: int, grid: Grid | None = None) -> Schedule:
        """Of the last forward, or at the model's own size before the first; `tokens` would not say which."""
        size = self._size or self.images.size(self.family.image_size(self.model))
        return schedule_of(self.plans(size), self.family.num_prefix)

    @property
    def planned_counts(self) -> list[int] | None:
        return list(self.schedule(0).counts)

    @property
    def trace(self) -> list[BlockTrace]:
        return self._traces

    @property
    def tokens(self) -> Tokens | None:
        """Of the last branch that was reduced in the last forward."""
        return None if self._left is None else self._left.with_sizes()

    def forget(self) -> None:
        super().forget()
        self._left = None

    @property
    def restoring(self) -> str | None:
        return "per_branch"

    def attach(self) -> Handle:
        if not self.attached:
            super().attach()
            if self.shrinks:  # before hooks that fill up a call with nothing but noise
                self._hooks.append(self.model.register_forward_pre_hook(self._shrink, with_kwargs=True, prepend=True))
            self._hooks.append(self.model.register_forward_pre_hook(self._begin, with_kwargs=True))
            self._hooks.append(self.model.register_forward_hook(self._end, always_call=True))
            if self.reduces:
                blocks = self.family.branched_blocks(self.model)
                for index, of in enumerate(blocks):
                    hooks = BranchHooks(of, index, len(blocks), self.family.num_prefix, self.reducer, self._now)
                    self._hooks += hooks.register(self.scope.branches) if self._may_act(index) else []
        return self

    def _may_act(self, index: int) -> bool:
        """Whether a block is reduced at the model's own size, or could be at another: odd sides round otherwise."""
        return bool(self.plans(self.family.image_size(self.model))[index].amount)

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        super().detach()

    def _shrink(self, model: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Whoever counts, times or looks at the denoiser calls it with noise of its own size, and nothing else.

        CellError for a sampler that does: what the denoiser did not see would stay noise.
        """
        own = self.family.image_size(self.model)
        wanted, x = self.images.size(own), (*args, *named.values())[0]
        if wanted == own or x.shape[-2:] == wanted:
            return None
        if named or len(args) > 1:
            raise CellError(
                f"reducer {self.reducer.name!r} at {self.rate} draws from noise of {wanted[0]} x {wanted[1]}, not of "
                f"{x.shape[-2]} x {x.shape[-1]}"
            )
        return (self.reducer("before_embedding", x, wanted),), {}

    def _begin(self, model: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        x, times = self.family.entering(model, args, named)
        self._size = int(x.shape[-2]), int(x.shape[-1])
        plans = self.plans(self._size)
        key = self.family.time_key(times)[:, None]
        self._running = Running(plans, key, counts=[{} for _ in plans])

    def _end(self, *_: Any) -> None:
        now, self._running = self._running, None
        if now is None:
            return
        prefix = self.family.num_prefix
        traces = [
            trace_of(plan.grid[0] * plan.grid[1] + prefix, counts, self.reducer.keys_values)
            for plan, counts in zip(now.plans, now.counts, strict=True)
        ]
        self._left, self._traces, self.branch_counts = now.left, traces, now.counts

    def _now(self) -> Running:
        if self._running is None:
            raise RuntimeError("a block of the denoiser was called by itself; call the whole model")
        return self._running


def schedule_of(plans: Sequence[BlockPlan], num_prefix: int) -> Schedule:
    """What the plans of all blocks come to."""
    counts = [plan.grid[0] * plan.grid[1] + num_prefix - plan.amount for plan in plans]
    active = [block for block, plan in enumerate(plans) if plan.amount]
    stages = {block: stage for stage, block in enumerate(active)}
    return Schedule(
        tuple(plan.amount for plan in plans), tuple(counts), tuple(stages.get(b) for b in range(len(plans)))
    )


def trace_of(count: int, counts: dict[str, int], keys_values: bool) -> BlockTrace:
    """Of a block of `count` tokens whose branches ran on fewer, where `counts` says so; or only keys and values did."""
    plain = BlockTrace.plain(counts.get("self", count), leaving=min([count, *counts.values()]), entering=count)
    if keys_values:
        plain = plain._replace(queries=count, projected=count)
    return plain._replace(mlp=counts.get("mlp", count))


def share_of(rate: Rate | None, reducer: Reducer, depth: int) -> tuple[float, tuple[int, ...]]:
    """The share of its own tokens that each of some blocks loses, and which these are.

    RequestError for what is no share: blocks have different numbers of tokens.
    """
    if rate is None or rate.is_zero:
        return 0.0, ()
    check_form(rate, reducer)
    if isinstance(rate, FractionPerBlock):
        return rate.fraction, active_blocks(rate, reducer, depth) if rate.blocks else tuple(range(depth))
    if isinstance(rate, KeptFraction) and not isinstance(rate.keep, tuple):
        return 1 - rate.keep, active_blocks(rate, reducer, depth) if rate.blocks else tuple(range(depth))
    raise RequestError(
        f"rate {rate} is no share of a block's tokens, of which a denoiser's blocks have different numbers; "
        "use one such as r=0.5"
    )
