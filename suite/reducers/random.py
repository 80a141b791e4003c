"""Random patches: the floor that every method has to beat."""

from suite.reducers.base import Reducer, register
from suite.tokens.grouping import in_batch
from suite.tokens.matching import ascending
from suite.tokens.sample_rng import draw


@register("random")
class Random(Reducer):
    """Drop patches chosen uniformly at random, order kept. A sanity floor.

    When: a floor is wanted: what does a method gain by looking at the image?

    The draw is seeded by `seed`, the block and a coarse fingerprint of the sample (`sample_rng`).
    """

    rates = ("r", "keep")
    staged = True
    reads_sizes = False
    in_branches = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def after_attention(self, tokens, signals, amount):
        tokens = tokens.with_key(signals.normed)
        numbers = draw(tokens.key, tokens.num_patches, self.seed, signals.block)
        kept = ascending(numbers.topk(tokens.num_patches - amount, dim=1).indices)
        return tokens.keep_rows(in_batch(kept, tokens.count, tokens.num_prefix))
