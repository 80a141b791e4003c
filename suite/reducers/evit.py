"""EViT: expediting Vision Transformers via token reorganizations."""

import math

from suite.reducers.base import Reducer, register
from suite.tokens.grouping import take_rows
from suite.tokens.ranking import ranked_rows


@register("evit")
class EViT(Reducer):
    """Keep the most attentive patches and fuse the others into one token.

    Source: Liang et al., ICLR 2022, arXiv 2202.07800. The fused token is the sum of the dropped ones weighted by
    their class attention, not normalised, and competes in later stages as an ordinary token.

    fuse: append the fused token (the paper's default); False drops the inattentive tokens.
    """

    rates = ("keep", "r")
    staged = True
    reads_sizes = False
    needs_class_token = True

    def __init__(self, fuse: bool = True) -> None:
        super().__init__()
        self.fuse = fuse

    def capacity(self, count, num_prefix):
        return count - num_prefix - 1 - self.fuse

    def amount_for_r(self, r):
        return r + 1 if self.fuse and r else r

    def amount_for_keep(self, keep, stage, patches, origin):
        return patches - math.ceil(keep * patches)

    def leaving(self, count, amount):
        return count - amount + self.fuse if amount else count

    def after_attention(self, tokens, signals, amount):
        attention = signals.class_attention
        order = ranked_rows(attention, tokens.num_prefix)
        staying, leaving = order[:, :-amount], order[:, -amount:]
        if not self.fuse:
            return tokens.keep_rows(staying)
        weights = take_rows(attention, leaving)[..., None]
        return tokens.keep_rows(staying, fused=(take_rows(tokens.x, leaving) * weights).sum(1, keepdim=True))
