"""HyNAP: neighbour-aware pruning and merging as a plan says."""

from suite.reducers.base import register
from suite.reducers.kept_counts import KeptCounts
from suite.reducers.neighbours import check_neighbourhood, ranked_by_neighbours


@register("hynap")
class HyNAP(KeptCounts):
    """DiffRate with NAP's score: patches go by class attention and by what their neighbours receive.

    Source: Li & Xu, 2025, arXiv 2512.22760. Every block sorts its patches by that score, also one that takes none out,
    so that neighbours along the curve are neighbours in the first block alone, and later those in rank: so it is in
    the authors' code. A plan is two lists, as DiffRate's; none is learned here. With a rate instead, half of what each
    block takes out is pruned and half is merged (ours).

    When: there is a plan, such as DiffRate learns, and neighbours should have a say in it.

    prune_kept, merge_kept: tokens that stay after pruning and after merging, one number a block, all prefix tokens
        (class, distillation, register) counted; a number at or above what is there takes nothing out.
    window, alpha: as of NAP.
    """

    reads_map = True
    orders_tokens = True

    def __init__(
        self,
        prune_kept: list[int] | None = None,
        merge_kept: list[int] | None = None,
        window: int = 1,
        alpha: float = 0.1,
    ) -> None:
        super().__init__(prune_kept, merge_kept)
        check_neighbourhood(window, alpha)
        self.window, self.alpha = window, alpha

    def best_first(self, tokens, signals):
        return ranked_by_neighbours(tokens, signals, self.window, self.alpha)
