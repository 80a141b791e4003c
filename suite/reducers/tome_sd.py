"""Token Merging for Stable Diffusion."""

from suite.reducers.base import Reducer, register
from suite.tokens.destinations import num_sources


@register("tome_sd")
class ToMeSD(Reducer):
    """Average alike tokens before a branch of a denoiser's block, and give every token its group's result after it.

    Source: Bolya & Hoffman, CVPR-W 2023, arXiv 2303.17604. Destinations are drawn, one in every window of the grid;
    the other tokens most alike to one are merged into it. Averages are plain, attention is unbiased.

    When: a denoiser is to be sped up without training; the usual choice.

    sx, sy: width and height of a window. random: draw the destinations; false: the upper left token of every window.
    seed: of the draws, which depend on it, the time step, the block and the window alone.
    """

    reads_sizes = False

    def __init__(self, sx: int = 2, sy: int = 2, random: bool = True, seed: int = 0) -> None:
        super().__init__()
        if min(sx, sy) < 1:
            raise ValueError(f"sx={sx}, sy={sy} is no window; give 1 or more")
        self.stride, self.seed = (sy, sx), seed if random else None

    def amount_in_branch(self, fraction, grid):
        return min(int(grid[0] * grid[1] * fraction), num_sources(grid, self.stride))

    def before_branch(self, tokens, signals, amount):
        return tokens.merge(signals.matching(amount, self.stride, self.seed), plain=True)
