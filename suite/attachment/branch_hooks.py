"""A reducer in the branches of a denoiser's blocks, by hooks on their modules: nothing of the model is copied.

What enters a branch, normed and modulated, is reduced; what leaves it goes to all tokens of each group. The residual
stream is never averaged, and the number of tokens between branches is always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from suite.backbones.branched import BranchedBlock
from suite.errors import CellError
from suite.reducers.base import Reducer
from suite.reducers.branch_signals import BranchSignals
from suite.tokens.state import Tokens


class BlockPlan(NamedTuple):
    """amount: tokens that are taken out before each branch in scope, 0: it is not touched. grid: of its tokens."""

    amount: int
    grid: tuple[int, int]


@dataclass
class Running:
    """What one forward knows of itself. plans: of its blocks. key: see `BranchSignals`. left: tokens of the
    last branch that was reduced; counts: tokens that each branch of a block ran on."""

    plans: list[BlockPlan]
    key: Tensor
    left: Tokens | None = None
    counts: list[dict[str, int]] = field(default_factory=list)


class BranchHooks:
    """Of one block, number `index` of `depth`. running: gives the forward that is under way."""

    def __init__(
        self,
        of: BranchedBlock,
        index: int,
        depth: int,
        num_prefix: int,
        reducer: Reducer,
        running: Callable[[], Running],
    ) -> None:
        self.of, self.index, self.depth, self.num_prefix = of, index, depth, num_prefix
        self.reducer, self.running = reducer, running
        self.signals: BranchSignals | None = None
        self.reduced: Tokens | None = None

    def register(self, branches: tuple[str, ...]) -> list[RemovableHandle]:
        """Hooks on the block and on those of its branches that it has."""
        made = [self.of.block.register_forward_pre_hook(self.enter, with_kwargs=True)]
        for name in branches:
            if name in self.of.branches and (name == "self" or not self.reducer.keys_values):
                module = self.of.branches[name]
                made.append(module.register_forward_pre_hook(self.reduce(name), with_kwargs=True))
                if not self.reducer.keys_values:
                    made.append(module.register_forward_hook(self.restore))
        return made

    def enter(self, _: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Note the residual stream that enters the block."""
        x, now = args[0] if args else named["hidden_states"], self.running()
        plan = now.plans[self.index]
        self.signals = self.reduced = None
        if not plan.amount:
            return
        rows, columns = plan.grid
        if x.dim() != 3 or x.shape[1] != rows * columns + self.num_prefix:
            raise CellError(f"block {self.of.name!r} got {tuple(x.shape)} in place of {rows} x {columns} tokens")
        self.signals = BranchSignals(x, self.index, self.depth, plan.grid, self.num_prefix, now.key)

    def reduce(self, branch: str) -> Callable[..., Any]:
        """The hook before a branch."""

        def before(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if self.signals is None:
                return None
            if branch == "self" and named.get("attention_mask") is not None:
                raise CellError(f"block {self.of.name!r} masks its self-attention; such tokens cannot be reduced")
            now = self.running()
            tokens = self.signals.start(args[0])
            reduced = self.reducer("before_branch", tokens, self.signals, now.plans[self.index].amount)
            now.left = reduced
            now.counts[self.index][branch] = reduced.count
            if self.reducer.keys_values:
                return args, {**named, "encoder_hidden_states": reduced.x}
            self.reduced = reduced
            return (reduced.x, *args[1:]), named

        return before

    def restore(self, _: Any, __: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """The hook behind a branch: every token gets what its group's branch came to, one without an owner nothing."""
        if self.reduced is None:
            return None
        restored, self.reduced = self.reduced.spread(output), None
        return restored
