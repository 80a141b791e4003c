"""MAT: merging adjacent tokens along a space-filling curve."""

import torch

from suite.reducers.base import Reducer, register, yes_no_or_default
from suite.tokens.constants import rows
from suite.tokens.curve import curve_rows
from suite.tokens.grouping import Matching, full_precision, take_rows, with_prefix
from suite.tokens.matching import ascending
from suite.tokens.ranking import best_first


@register("mat")
class MAT(Reducer):
    """Put the patches in the order of a curve through the image; in every block merge the r most similar neighbours.

    Source: Li & Xu, 2025, arXiv 2512.22760. Similarity is the cosine of the keys of patches that follow each other; a
    run of joined pairs becomes one token at the place of the first, so that the order is never lost and any number of
    patches but one can go. The curve is the generalised Hilbert curve (`suite.tokens.curve`). Averages and the head's
    pool are weighted by size.

    When: only neighbours in the image should be merged, at the cost of comparing neighbours alone.

    proportional_attention: default as in ToMe: on, but off for MAE models off the shelf.
    """

    weighted_pooling = True

    def __init__(self, proportional_attention: bool | None = None) -> None:
        super().__init__()
        self.proportional_attention = yes_no_or_default(proportional_attention)

    def after_attention(self, tokens, signals, amount):
        curve = curve_rows(tokens, signals.grid)
        return tokens.merge(neighbour_matching(signals.keys, amount, tokens.num_prefix, curve))


def neighbour_matching(metric, r, protected, order=None):
    """The `r` most similar of consecutive patches become merges, of which runs make one group.

    Args:
        metric: (B, N, D) what similarity (cosine) is measured on.
        r: tokens to merge away, at most N - protected - 1.
        protected: leading tokens that are never merged nor merged into.
        order: (B, N - protected) rows of the flattened batch of the patches, in the order that they are to have; None:
            the one they have.

    Ties go to the lower place. No gradient flows.
    """
    batch, count = metric.shape[:2]
    patches = metric[:, protected:] if order is None else take_rows(metric, order)
    with torch.no_grad(), torch.autocast(metric.device.type, enabled=False):
        patches = full_precision(patches)
        norms = torch.linalg.vector_norm(patches, dim=2).clamp_(min=1e-12)
        cosine = (patches[:, :-1] * patches[:, 1:]).sum(dim=2) / norms[:, :-1] / norms[:, 1:]
        places = best_first(cosine) + 1  # of the second of each pair
        source, begin = places[:, :r].contiguous(), ascending(places[:, r:])
        into = torch.searchsorted(begin, source)  # how many runs begin before it, the first not counted
    if order is None:
        order = rows(batch, count, protected, count, 1, metric.device)
    kept = with_prefix(count, protected, order[:, :1], order.gather(1, begin))
    return Matching.of_rows(kept, order.gather(1, source), into, count, protected)
