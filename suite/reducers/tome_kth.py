"""Token Merging into every k-th token."""

from suite.reducers.base import Reducer, register, yes_no_or_default
from suite.tokens.matching import kth_bipartite_matching


@register("tome_kth")
class ToMeKth(Reducer):
    """Merge the r tokens of every block that are most similar to one of every k-th token.

    Source: the k-th bipartite matching beside ToMe (Bolya et al., ICLR 2023, arXiv 2210.09461). There all tokens but
    every k-th are merged in every block, a fixed part of 1 - 1/k; that is the largest rate here (r=0.75 for k = 4), and
    smaller rates merge the best r of the same pairs. Keys, sizes and proportional attention as in ToMe, which is k = 2.

    When: what the choice of pairs brings is to be seen beside tome.
    """

    weighted_pooling = True

    def __init__(self, k: int = 4, proportional_attention: bool | None = None) -> None:
        super().__init__()
        if k < 2:
            raise ValueError(f"k={k}: every k-th token takes others in, so k is at least 2")
        self.k = k
        self.proportional_attention = yes_no_or_default(proportional_attention)

    def capacity(self, count, num_prefix):
        if count // self.k == num_prefix // self.k:  # no patch stands at a k-th place
            return 0
        return (count - num_prefix) * (self.k - 1) // self.k

    def after_attention(self, tokens, signals, amount):
        return tokens.merge(kth_bipartite_matching(signals.keys, amount, tokens.num_prefix, self.k))
