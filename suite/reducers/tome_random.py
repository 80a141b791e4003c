"""Token Merging with sources drawn at random."""

from suite.reducers.base import Reducer, register, yes_no_or_default
from suite.tokens.matching import ascending, nearest_matching
from suite.tokens.sample_rng import draw


@register("tome_random")
class ToMeRandom(Reducer):
    """Merge r random patches of every block, each into the most similar of the others.

    Source: the random bipartite matching beside ToMe (Bolya et al., ICLR 2023, arXiv 2210.09461). Keys, sizes and
    proportional attention as in ToMe; prefix tokens take no part.

    When: what the choice of pairs brings is to be seen beside tome.

    seed: of the draw, which differs by sample and block (`sample_rng`).
    """

    weighted_pooling = True

    def __init__(self, seed: int = 0, proportional_attention: bool | None = None) -> None:
        super().__init__()
        self.seed = seed
        self.proportional_attention = yes_no_or_default(proportional_attention)

    def after_attention(self, tokens, signals, amount):
        prefix, tokens = tokens.num_prefix, tokens.with_key(signals.normed)
        numbers = draw(tokens.key, tokens.num_patches, self.seed, signals.block)
        order = prefix + numbers.topk(tokens.num_patches, dim=1).indices
        sources, targets = order[:, :amount], ascending(order[:, amount:])
        return tokens.merge(nearest_matching(signals.keys, amount, prefix, sources, targets))
