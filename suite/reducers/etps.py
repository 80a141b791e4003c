"""Joint token pruning and squeezing, tokens chosen by class attention."""

from suite.reducers.base import Reducer, register
from suite.reducers.squeeze import squeeze_rows
from suite.tokens.ranking import ranked_rows


@register("etps")
class ETPS(Reducer):
    """Keep the most attentive patches and fold each of the others into its most similar kept one.

    Source: Wei et al., CVPR 2023, arXiv 2304.10716 (eTPS: EViT's selection with dTPS's squeeze, between attention and
    MLP). int(T0 * keep^(k+1)) of the T0 original patches remain after stage k. No sizes in attention or head.

    When: there is a class token, nothing can be trained, and what is pruned should not be lost.
    """

    rates = ("keep", "r")
    staged = True
    reads_sizes = False
    needs_class_token = True

    def after_attention(self, tokens, signals, amount):
        order = ranked_rows(signals.class_attention, tokens.num_prefix)
        return squeeze_rows(tokens, order[:, :-amount], order[:, -amount:])
