"""What a reducer is. A reducer file imports this and the shared token operations, nothing else of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from suite.reducers.branch_signals import BranchSignals
from suite.reducers.signals import Signals
from suite.tokens.grouping import Matching
from suite.tokens.layout import Layout
from suite.tokens.places import RULES
from suite.tokens.state import Tokens

REGISTERED: dict[str, type[Reducer]] = {}
HOOKS = ("before_embedding", "before_block", "inside_attention", "after_attention", "after_block")


def register(name: str) -> Callable[[type[Reducer]], type[Reducer]]:
    """Class decorator: makes a reducer known by `name`. ValueError if another class has the name already."""

    def add(cls: type[Reducer]) -> type[Reducer]:
        known = REGISTERED.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"reducer {name!r} is registered twice: {known.__module__} and {cls.__module__}")
        cls.name = name
        REGISTERED[name] = cls
        return cls

    return add


@dataclass(frozen=True)
class GroupedAttention:
    """Attention goes on with groups: keys of a group act as one (their attention adds up), queries are averaged.

    tokens: the merged tokens (their residual stream; values are made of them). matching: the groups. weight: (B, N)
    what the queries' rows are averaged by.
    """

    tokens: Tokens
    matching: Matching
    weight: Tensor


@dataclass(frozen=True)
class SelectedQueries:
    """Only some queries are answered; keys and values stay those of all tokens.

    tokens: the tokens that stay, prefix first. rows: (B, M) their positions before.
    """

    tokens: Tokens
    rows: Tensor


RETURNED: dict[str, tuple[type, ...]] = {
    "before_embedding": (Tensor,),
    "inside_attention": (GroupedAttention, SelectedQueries),
    "give_back": (Tensor,),
}
"""What a hook has to return where that is not `Tokens`."""


class Reducer(nn.Module):
    """A method that shrinks the set of tokens while the backbone runs.

    A subclass overrides one hook and returns new `Tokens` (`inside_attention`: what attention is to do). `amount` is
    the number of tokens that the block is to take out; it was resolved from the rate before the run, and a hook is
    never called with 0, unless it sets `orders_tokens` or `only_looks`. `before_embedding` makes smaller images
    instead, and no block takes anything out. The class attributes say what the method is; constructor arguments are its
    options.
    """

    name: ClassVar[str]
    rates: ClassVar[tuple[str, ...]] = ("r",)
    """Rate forms the method is defined for, besides flops; the first is what a FLOPs target is solved over."""
    staged: ClassVar[bool] = False
    """True: a keep rate applies at 1/4, 1/2 and 3/4 of the depth (blocks 3, 6, 9 of 12), not in every block."""
    needs_class_token: bool = False
    """Selects by class attention, so a model without a class token is refused."""
    learned: str | None = None
    """What has to be trained before the method means anything ('embedding', ...); None: training-free."""
    checkpoint_keys: ClassVar[dict[str, str]] = {}
    """Regular expressions of keys in its authors' checkpoints (backbone and method in one file) -> our names."""
    input_dependent: ClassVar[bool] = False
    """How many tokens stay depends on the image; the rate is an upper bound."""
    keeps_grid: ClassVar[bool] = False
    """Takes whole rows and columns out of the grid of patches, so that they stay one; see `Signals.grids`."""
    restores_per_block: ClassVar[bool] = False
    """All tokens are given back at the end of every block, whatever the model wants; see `Tokens.assign`, `back`."""
    exact_groups: ClassVar[bool] = True
    """Sizes count the original tokens that the owner map assigns, at least one each (not so for soft assignments)."""
    proportional_attention: bool | float | None = False
    """Attention is biased by log size (ToMe, eq. 1), with -1 by its negative; None: unless the model was trained
    otherwise (MAE)."""
    group_position: str = RULES[0]
    """Where merged tokens are, for a model whose blocks go by positions: see `suite.tokens.places`."""
    weighted_pooling: bool = False
    """An average-pooling head weights tokens by their sizes."""
    reads_sizes: bool = True
    """The hook reads `tokens.size`; False: sizes are kept up only where attention or pooling goes by them."""
    reads_map: bool = False
    """The hook, or `observe`, reads the attention map, so the block computes it, once, and attends with it."""
    reads_previous: bool = False
    """The hook acts before a block and reads `signals.observed`: what `observe` kept of the block before."""
    orders_tokens: ClassVar[bool] = False
    """The order of tokens matters to the hook, and it sets it: where any block takes tokens out, it is called in every
    block, with an amount of 0 in those that take out none."""
    only_looks: ClassVar[bool] = False
    """It is called in every block, at any rate and at none, with an amount of 0, and takes nothing out."""
    carries: bool = False
    """Something is made of the embedded tokens (`begin`) and carried along in `Tokens.carried`."""
    first_block: ClassVar[int] = 0
    """The first block that it can act in; 1 where the hook has nothing to go by without a block before."""
    in_branches: ClassVar[bool] = False
    """`after_attention` asks for no more than `BranchSignals` say, so it may act before a branch, too."""
    keys_values: ClassVar[bool] = False
    """In a branch, only the keys and values of self-attention are reduced; every token keeps its query."""
    formulation: str | None = None
    """Which of several equivalent ways to compute it is run, where that changes what is counted."""

    def __init__(self) -> None:
        super().__init__()
        self._trained = False
        self.register_load_state_dict_post_hook(note_loading)

    @property
    def site(self) -> str | None:
        """The hook that this method overrides, or None."""
        return next((hook for hook in HOOKS if getattr(type(self), hook) is not getattr(Reducer, hook)), None)

    @property
    def trained(self) -> bool:
        """Nothing is to be learned, or it was: its weights were loaded or `mark_trained` was called."""
        return self.learned is None or self._trained

    @property
    def soft(self) -> bool:
        """Merges or prunes softly at present and so keeps all tokens (DTEM, dTPS and others in training)."""
        return False

    def mark_trained(self) -> None:
        self._trained = True

    def forward(self, hook: str, *arguments: Any) -> Any:
        """Calls a hook. Through the module call, so that profilers and FLOP counters see the method's own work."""
        result, wanted = getattr(self, hook)(*arguments), RETURNED.get(hook, (Tokens,))
        if not isinstance(result, wanted):
            names = " or ".join(kind.__name__ for kind in wanted)
            raise TypeError(
                f"{hook} of reducer {type(self).__name__} returned a {type(result).__name__}; return {names}"
            )
        return result

    def before_embedding(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Images (B, 3, H, W) -> those of `size` (h, w) that the model is given in their place."""
        raise NotImplementedError

    def before_block(self, tokens: Tokens, signals: Signals, amount: int) -> Tokens:
        raise NotImplementedError

    def inside_attention(self, tokens: Tokens, signals: Signals, amount: int) -> GroupedAttention | SelectedQueries:
        raise NotImplementedError

    def after_attention(self, tokens: Tokens, signals: Signals, amount: int) -> Tokens:
        raise NotImplementedError

    def after_block(self, tokens: Tokens, signals: Signals, amount: int) -> Tokens:
        raise NotImplementedError

    def begin(self, tokens: Tokens, embedded: Tensor, grid: tuple[int, int]) -> Tokens:
        """The tokens with what is to be carried through this forward; called before the first block, only if `carries`.

        embedded: (B, N, C) what enters block 0, which may lie before these tokens. grid: rows and columns of patches.
        """
        raise NotImplementedError

    def change_map(self, attention: Tensor) -> Tensor:
        """The map (B, H, N, N) that a block in which the method acts attends with, where it reads maps at all."""
        return attention

    def observe(self, tokens: Tokens, signals: Signals) -> tuple[Tensor, ...]:
        """What the hook is to know, as `signals.observed`, of the block before the one that it acts in.

        Called at the end of that block, whose tokens these are, and only if `reads_previous`. Nothing that is counted
        is to be computed here. What is said of tokens goes through `Tokens.pass_on`.
        """
        raise NotImplementedError

    def before_branch(self, tokens: Tokens, signals: BranchSignals, amount: int) -> Tokens:
        """Called before a branch (attention, MLP) of a block that gives every token what its group's branch computed.

        tokens: the normed tokens that enter the branch, all of them; what is returned is restored right after it.
        """
        return self.after_attention(tokens, cast(Signals, signals), amount)

    @property
    def acts_in_branches(self) -> bool:
        """It can be attached to a denoiser, whose tokens are taken out for a branch at a time."""
        return self.in_branches or type(self).before_branch is not Reducer.before_branch

    def amount_in_branch(self, fraction: float, grid: tuple[int, int]) -> int:
        """What to take out before a branch on all tokens of a `grid`: that share of them, rounded down, or fewer."""
        count = grid[0] * grid[1]
        return max(0, min(int(count * fraction), self.capacity(count, 0)))

    def prepare(self, state: Mapping[str, Tensor]) -> None:
        """Called with a weights file's tensors before the reducer is built: a plan that was learned is taken here.

        ValueError, in one line, for tensors that cannot be meant.
        """

    def build(self, layout: Layout, stages: int) -> None:
        """Make what is learned for a backbone of `layout` and `stages` active blocks; called again, add what lacks."""

    def grow(self, modules: nn.ModuleList | nn.ParameterList, count: int, make: Callable[[], Any]) -> None:
        """Append modules until there are `count`, each with its own seeded random weights: untrained runs repeat."""
        for index in range(len(modules), count):
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(index)
                modules.append(make())

    def extra_projection(self, block: int) -> tuple[Tensor, Tensor] | None:
        """Weight (D, C) and bias (D,) of what the hook reads as `signals.extra`; at eval one product with qkv."""
        return None

    @property
    def has_fixed_schedule(self) -> bool:
        """The method was given a schedule as an option, so that a rate has nothing to say; see `learned_schedule`."""
        return False

    @property
    def num_learned_schedules(self) -> int:
        """How many it has learned, the weakest first; the rates plan=1, plan=2, ... name them."""
        return 0

    def learned_schedule(
        self, depth: int, tokens: int, num_prefix: int, plan: int | None = None, restored_per_block: bool = False
    ) -> list[int]:
        """Amounts per block: of the learned schedule number `plan`, or of the fixed one.

        restored_per_block: every block begins with all tokens again. ValueError for one that does not fit the model.
        """
        raise NotImplementedError

    def active_blocks(self, kind: str, depth: int) -> tuple[int, ...]:
        """Blocks in which a rate of form `kind` ('r', 'keep') acts where the user names none."""
        if kind == "keep" and self.staged:
            return tuple(sorted({depth * quarter // 4 for quarter in (1, 2, 3)}))
        return tuple(range(depth))

    def capacity(self, count: int, num_prefix: int) -> int:
        """The largest reduction r of a block that `count` tokens enter. A pruner leaves one patch token."""
        return count - num_prefix - 1

    def amount_for_r(self, r: int) -> int:
        """What to take out so that the sequence becomes r tokens shorter."""
        return r

    def amount_for_fraction(self, fraction: float, count: int, num_prefix: int) -> int:
        """What to take out of `count` tokens at a rate such as r=0.35: that fraction of the patches, rounded down."""
        return self.amount_for_r(max(0, min(int((count - num_prefix) * fraction), self.capacity(count, num_prefix))))

    def amount_for_keep(self, keep: float, stage: int, patches: int, origin: int) -> int:
        """What stage `stage` (from 0) takes out of `patches` tokens, of `origin` at first.

        The common rule of the pruning literature (Haurum et al., 2023): int(origin * keep^(stage + 1)) remain.
        """
        return max(0, patches - int(origin * keep ** (stage + 1)))

    def leaving(self, count: int, amount: int) -> int:
        """Tokens that leave a block that `count` entered, with `amount` taken out."""
        return count - amount


def acts_in_blocks(cls: type[Reducer]) -> bool:
    """It overrides one of `HOOKS`, or takes nothing out at all."""
    overridden = any(getattr(cls, hook) is not getattr(Reducer, hook) for hook in HOOKS)
    return overridden or cls.before_branch is Reducer.before_branch


def note_loading(reducer: Reducer, _: object) -> None:
    """A hook of torch's; a function by itself, so that a reducer can be pickled."""
    reducer.mark_trained()


def yes_no_or_default(value: bool | None) -> bool | None:
    """An option that is True, False, or None: as the model was trained. ValueError for anything else."""
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"proportional_attention={value!r} is not true, false or null")
    return value
