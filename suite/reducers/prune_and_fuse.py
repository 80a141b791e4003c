"""What methods share that keep the best patches and make one token of all the others."""

import math

from suite.reducers.base import Reducer
from suite.tokens.grouping import take_rows


class PruneAndFuse(Reducer):
    """Keeps the first patches of an order; a subclass says the order, and what the token of the others is.

    fuse: append that token; False drops the others.
    """

    reads_sizes = False

    def __init__(self, fuse: bool = True) -> None:
        super().__init__()
        self.fuse = fuse

    def capacity(self, count, num_prefix):
        return count - num_prefix - 1 - self.fuse

    def amount_for_r(self, r):
        return r + 1 if self.fuse and r else r

    def leaving(self, count, amount):
        return count - amount + self.fuse if amount else count

    def best_first(self, tokens, signals):
        """(B, T) rows of the flattened batch: patches in the order in which they stay."""
        raise NotImplementedError

    def fused(self, tokens, signals, leaving):
        """(B, 1, C) the token of the patches at rows `leaving` (B, K) of the flattened batch."""
        raise NotImplementedError

    def after_attention(self, tokens, signals, amount):
        order = self.best_first(tokens, signals)
        staying, leaving = order[:, :-amount], order[:, -amount:]
        return tokens.keep_rows(staying, fused=self.fused(tokens, signals, leaving) if self.fuse else None)


class PruneAttentively(PruneAndFuse):
    """The token of the others is their sum weighted by class attention, not normalised.

    Source: EViT (Liang et al., ICLR 2022, arXiv 2202.07800).
    """

    rates = ("keep", "r")
    staged = True
    needs_class_token = True

    def amount_for_keep(self, keep, stage, patches, origin):
        return patches - math.ceil(keep * patches)

    def fused(self, tokens, signals, leaving):
        weights = take_rows(signals.class_attention, leaving)[..., None]
        return (take_rows(tokens.x, leaving) * weights).sum(1, keepdim=True)
