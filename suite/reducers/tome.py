"""Token Merging."""

from suite.reducers.base import Reducer, register, yes_no_or_default
from suite.tokens.matching import bipartite_soft_matching


@register("tome")
class ToMe(Reducer):
    """Merge the r most similar tokens of every block. Source: Bolya et al., ICLR 2023, arXiv 2210.09461.

    When: nothing can be trained, on any model, with or without a class token; what others are compared with.

    proportional_attention: default as in the paper: on, but off for MAE models off the shelf.
    """

    weighted_pooling = True
    in_branches = True

    def __init__(self, proportional_attention: bool | None = None) -> None:
        super().__init__()
        self.proportional_attention = yes_no_or_default(proportional_attention)

    def capacity(self, count, num_prefix):
        return (count - num_prefix) // 2

    def after_attention(self, tokens, signals, amount):
        return tokens.merge(bipartite_soft_matching(signals.keys, amount, protected=tokens.num_prefix))
