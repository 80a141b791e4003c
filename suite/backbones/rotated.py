"""Blocks that rotate the queries and keys of patches by their places."""

from __future__ import annotations

import copy
from typing import Self

from torch import Tensor

from suite.reducers.signals import BlockParts
from suite.tokens.places import rotations_of
from suite.tokens.state import Tokens


class RotatedParts(BlockParts):
    """rotations: what the patch tokens' queries and keys are rotated by; None where the model rotates nothing."""

    rotations: Tensor | None = None

    def at(self, tokens: Tokens) -> Self:
        rotations = rotations_of(tokens, self.index)
        if rotations is None:
            return self
        twin = copy.copy(self)
        twin.rotations = rotations
        return twin
