"""Random patches: the floor that every method has to beat."""

from suite.reducers.base import Reducer, register
from suite.tokens.sample_rng import random_order


@register("random")
class Random(Reducer):
    """Drop patches chosen uniformly at random, order kept. A sanity floor.

    The draw is seeded by `seed`, the block and a coarse fingerprint of the sample (`random_order`).
    """

    rates = ("r", "keep")
    staged = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def after_attention(self, tokens, signals, amount):
        prefix = tokens.num_prefix
        order = random_order(signals.normed[:, prefix:], self.seed, signals.block)
        kept = order[:, : tokens.num_patches - amount].sort(dim=1).values
        return tokens.keep(prefix + kept)
