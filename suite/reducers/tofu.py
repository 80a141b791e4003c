"""Token Fusion: prune in early blocks, merge without loss of norm in late ones."""

from suite.reducers.base import Reducer, register
from suite.tokens.destinations import num_sources
from suite.tokens.grouping import mlerp, take_rows
from suite.tokens.matching import bipartite_soft_matching

MERGES = {"mlerp": "mlerp", "average": "average", "avg": "average"}
STRIDE = (2, 2)  # of the windows that hold a destination each


@register("tofu")
class ToFu(Reducer):
    """Match tokens as ToMe does; blocks before `d` drop the sources, the others merge them.

    Source: Kim et al., WACV 2024, arXiv 2312.01026. A token that is dropped is owned by its match but leaves nothing
    in it. Sizes are counted for owner maps only: averages are plain and attention is unbiased, as in the paper.

    When: nothing can be trained, and early blocks can do without what resembles others.

    Before the branches of a denoiser's blocks, tokens are matched as by `tome_sd`, and `d` counts all its blocks.

    d: first block that merges; default half the depth (the paper's 6 of 12), rounded down.
    merge: 'mlerp' (direction of the mean, largest norm of the group) or 'average'.
    size_weighted: ours, not in the paper: averages and the head's pool are weighted by size, attention is proportional.
    """

    def __init__(self, d: int | None = None, merge: str = "mlerp", size_weighted: bool = False) -> None:
        super().__init__()
        if d is not None and (isinstance(d, bool) or not isinstance(d, int) or d < 0):
            raise ValueError(f"d={d!r} is no block; give the number of the first block that merges, 0 or more")
        if merge not in MERGES:
            raise ValueError(f"merge={merge!r} is not known; use 'mlerp' or 'average'")
        self.d, self.merge = d, MERGES[merge]
        self.proportional_attention = self.weighted_pooling = self.reads_sizes = size_weighted

    def capacity(self, count, num_prefix):
        return (count - num_prefix) // 2

    def amount_in_branch(self, fraction, grid):
        return min(int(grid[0] * grid[1] * fraction), num_sources(grid, STRIDE))

    def before_branch(self, tokens, signals, amount):
        return self._fuse(tokens, signals, signals.matching(amount, STRIDE))

    def after_attention(self, tokens, signals, amount):
        matching = bipartite_soft_matching(signals.keys, amount, protected=tokens.num_prefix)
        return self._fuse(tokens, signals, matching)

    def _fuse(self, tokens, signals, matching):
        first_merging = signals.depth // 2 if self.d is None else self.d
        if signals.block < first_merging:
            return tokens.merge(matching, x=take_rows(tokens.x, matching.rows(tokens.count)[0]))
        if self.proportional_attention:
            x = weighted_mlerp(tokens.x, matching, tokens.sizes) if self.merge == "mlerp" else None
            return tokens.merge(matching, x=x)
        return tokens.merge(matching, x=mlerp(tokens.x, matching) if self.merge == "mlerp" else None, plain=True)


def weighted_mlerp(x, matching, weight):
    """(B, N, C) rows, (B, N) weights -> (B, M, C): direction of each group's weighted mean, its largest norm."""
    return mlerp(x, matching, weight)
