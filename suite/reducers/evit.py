"""EViT: expediting Vision Transformers via token reorganizations."""

from suite.reducers.base import register
from suite.reducers.prune_and_fuse import PruneAttentively
from suite.tokens.ranking import ranked_rows


@register("evit")
class EViT(PruneAttentively):
    """Keep the most attentive patches and fuse the others into one token.

    Source: Liang et al., ICLR 2022, arXiv 2202.07800. The fused token is the sum of the dropped ones weighted by
    their class attention, not normalised, and competes in later stages as an ordinary token.

    When: there is a class token and nothing can be trained; few launches a block.

    fuse: append the fused token (the paper's default); False drops the inattentive tokens.
    """

    def best_first(self, tokens, signals):
        return ranked_rows(signals.class_attention, tokens.num_prefix)
