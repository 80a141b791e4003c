"""NAP: neighbour-aware pruning."""

from suite.reducers.base import register
from suite.reducers.neighbours import check_neighbourhood, ranked_by_neighbours
from suite.reducers.prune_and_fuse import PruneAttentively


@register("nap")
class NAP(PruneAttentively):
    """Keep the patches that the class token attends to or whose neighbours get attention, and fuse the others.

    Source: Li & Xu, 2025, arXiv 2512.22760. EViT with another score: (1 - alpha) times class attention, plus alpha
    times what the neighbours along a curve through the image (`suite.tokens.curve`) receive from all tokens. The fused
    token weighs by class attention alone. What stays is in the order of its score, so that from the second of the
    active blocks on neighbours are neighbours in rank: so it is in the authors' code.

    When: evit would do, and what neighbours receive should count, too.

    fuse: append the fused token; False drops what is pruned.
    window: how far neighbours reach, to either side (the paper's R).
    alpha: weight of what they receive.
    """

    reads_map = True

    def __init__(self, fuse: bool = True, window: int = 1, alpha: float = 0.1) -> None:
        super().__init__(fuse)
        check_neighbourhood(window, alpha)
        self.window, self.alpha = window, alpha

    def best_first(self, tokens, signals):
        return ranked_by_neighbours(tokens, signals, self.window, self.alpha)
