"""What a reducer is. A reducer file imports this and the shared token operations, nothing else of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from suite.tokens import Tokens

if TYPE_CHECKING:
    from suite.backbones.block import Signals

REGISTERED: dict[str, type[Reducer]] = {}


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


class Reducer(nn.Module):
    """A method that shrinks the set of tokens while the backbone runs.

    A subclass overrides one hook and returns new `Tokens`. `amount` is the number of tokens that the block is to take
    out; it was resolved from the rate before the run, and a hook is never called with 0. The class attributes say
    what the method is; constructor arguments are its options.
    """

    name: ClassVar[str]
    rates: ClassVar[tuple[str, ...]] = ("r",)
    """Rate forms the method is defined for, besides flops; the first is what a FLOPs target is solved over."""
    staged: ClassVar[bool] = False
    """True: a keep rate applies at 1/4, 1/2 and 3/4 of the depth (blocks 3, 6, 9 of 12), not in every block."""
    needs_class_token: ClassVar[bool] = False
    """Selects by class attention, so a model without a class token is refused."""
    proportional_attention: bool = False
    """Attention is biased by log size (ToMe, eq. 1)."""
    weighted_pooling: bool = False
    """An average-pooling head weights tokens by their sizes."""

    def __init__(self) -> None:
        super().__init__()

    @property
    def site(self) -> str | None:
        """The hook that this method overrides: 'before_block', 'after_attention', or None."""
        for hook in ("before_block", "after_attention"):
            if getattr(type(self), hook) is not getattr(Reducer, hook):
                return hook
        return None

    def forward(self, hook: str, tokens: Tokens, signals: Signals, amount: int) -> Tokens:
        """Calls a hook. Through the module call, so that profilers and FLOP counters see the method's own work."""
        return getattr(self, hook)(tokens, signals, amount)

    def before_block(self, tokens: Tokens, signals: Signals, amount: int) -> Tokens:
        raise NotImplementedError

    def after_attention(self, tokens: Tokens, signals: Signals, amount: int) -> Tokens:
        raise NotImplementedError

    def capacity(self, count: int, num_prefix: int) -> int:
        """The largest reduction r of a block that `count` tokens enter. A pruner leaves one patch token."""
        return count - num_prefix - 1

    def amount_for_r(self, r: int) -> int:
        """What to take out so that the sequence becomes r tokens shorter."""
        return r

    def amount_for_keep(self, keep: float, stage: int, patches: int, origin: int) -> int:
        """What stage `stage` (from 0) takes out of `patches` tokens, of `origin` at first.

        The common rule of the pruning literature (Haurum et al., 2023): int(origin * keep^(stage + 1)) remain.
        """
        return max(0, patches - int(origin * keep ** (stage + 1)))

    def leaving(self, count: int, amount: int) -> int:
        """Tokens that leave a block that `count` entered, with `amount` taken out."""
        return count - amount
