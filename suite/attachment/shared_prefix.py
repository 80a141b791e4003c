"""What a batch goes through before any method acts is the same for all of them, so it is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from suite.reducers.signals import BlockParts
from suite.tokens.state import Tokens


class SharedPrefix:
    """The unreduced residual stream of one batch of images at the blocks where methods begin to act.

    Only for inference: a block on the same tensor gives the same bits, so a method's result does not depend on whether
    its first blocks were shared.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self._entering: dict[int, Tokens] = {}

    def entering(self, block: int, start: Callable[[Tensor], Tokens], blocks: Sequence[BlockParts]) -> Tokens:
        """All tokens that enter `block` of the unreduced model; `block` = depth: those that leave the last."""
        if block not in self._entering:
            known = max((b for b in self._entering if b < block), default=None)
            tokens = start(self.images) if known is None else self._entering[known]
            for parts in blocks[known or 0 : block]:
                tokens = tokens.with_features(parts.at(tokens).original(tokens.x))
            self._entering[block] = tokens
        return self._entering[block]
