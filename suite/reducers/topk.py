"""Top-K pruning by class attention."""

from suite.reducers.base import Reducer, register
from suite.tokens.ranking import ranked_rows


@register("topk")
class TopK(Reducer):
    """Keep the patches that the class token attends to most, drop the others.

    Source: Haurum et al., ICCV-W 2023, arXiv 2308.04657 (EViT's selection without fusing). Counts are fractions of
    the original tokens, rounded down.

    When: there is a class token and nothing can be trained; the fewest launches of what looks at the image.
    """

    rates = ("keep", "r")
    staged = True
    reads_sizes = False
    needs_class_token = True

    def after_attention(self, tokens, signals, amount):
        order = ranked_rows(signals.class_attention, tokens.num_prefix)
        return tokens.keep_rows(order[:, : tokens.num_patches - amount])
