"""What a branch of a denoiser's block can tell a reducer."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from suite.tokens.destinations import Draw, draw_in_windows, match_to_destinations
from suite.tokens.grouping import Matching
from suite.tokens.state import Tokens


@dataclass
class BranchSignals:
    """Of one call of a block; what is found once serves all its branches.

    entering: (B, N, C) residual stream that enters the block, before any norm. block, depth: number of the block and of
    all blocks, in the order in which they run. grid: rows and columns of its patches. num_prefix: tokens before them.
    key: (B, 1) int64 what stands for the time step, the same for all samples; random draws are seeded by it.
    """

    entering: Tensor
    block: int
    depth: int
    grid: tuple[int, int]
    num_prefix: int
    key: Tensor
    draw: Draw = draw_in_windows
    _matchings: dict[tuple[int, tuple[int, int], int | None], Matching] = field(default_factory=dict)

    @property
    def normed(self) -> Tensor:
        """What a sample's own draws would be seeded by; here `key` is in its place."""
        return self.entering

    @property
    def keys(self) -> Tensor:
        """(B, N, C) what tokens are compared by: no keys are known before a branch ran, so the residual stream."""
        return self.entering

    def start(self, x: Tensor) -> Tokens:
        """Tokens (B, N, C) that enter a branch."""
        return Tokens(x, self.num_prefix, origin=int(x.shape[1]), restoring="per_branch", counted=False, key=self.key)

    def matching(self, amount: int, stride: tuple[int, int], seed: int | None = 0) -> Matching:
        """The `amount` patches most alike to a destination, one in every window of `stride` (rows, columns), go to it.

        Similarity is that of the residual stream. seed: of the draws; None: always the upper left token of a window.
        """
        known = self._matchings.get((amount, stride, seed))
        if known is None:
            windows = (self.grid[0] // stride[0]) * (self.grid[1] // stride[1])
            if seed is None:
                draws = self.key.new_zeros(1, 1).expand(len(self.entering), windows)
            else:
                draws = self.draw(self.key, windows, seed, self.block)
            known = match_to_destinations(self.entering, amount, self.num_prefix, self.grid, stride, draws)
            self._matchings[amount, stride, seed] = known
        return known
