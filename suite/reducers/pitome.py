"""PiToMe: merging that protects what is unlike everything else."""

import math

import torch
import torch.nn.functional as F

from suite.reducers.base import Reducer, register
from suite.tokens.grouping import Matching, in_batch, take, with_prefix
from suite.tokens.matching import normalize
from suite.tokens.ranking import best_first

ORDERS = ("deit", "mae")


@register("pitome")
class PiToMe(Reducer):
    """Merge only tokens of high energy, those that have much in common with many others.

    Source: Tran et al., NeurIPS 2024, arXiv 2405.16148. The energy of a patch is the mean over all patches of
    ELU(cosine of keys - margin), with margin * (1 - l / L) in block l of L. One half of the blocks merges the r best
    pairs of the two halves by energy rank ('bsm'), the other half all of the 2r highest in energy ('pitome').
    Averages and the head's pool are weighted by size; attention is never biased.

    When: nothing can be trained, and small things among much that is alike have to stay.

    margin: 0.75 in the authors' code; the paper says 0.9.
    order: 'deit' begins with 'bsm' in the first half of the blocks (rounded up), 'mae' with 'pitome': what the authors'
        code does for models of either kind.

    keep is the fraction that each block keeps: floor(T - T * keep) of its T patches are merged away.
    """

    rates = ("keep", "r")
    weighted_pooling = True

    def __init__(self, margin: float = 0.75, order: str = "deit") -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"order={order!r} is not known; use 'deit' or 'mae'")
        self.margin, self.order = margin, order

    def capacity(self, count, num_prefix):
        return (count - num_prefix) // 2

    def amount_for_keep(self, keep, stage, patches, origin):
        return math.floor(patches - patches * keep)  # in floats, as the authors write it

    def after_attention(self, tokens, signals, amount):
        late = signals.block >= math.ceil(signals.depth / 2)
        margin = self.margin * (1 - signals.block / signals.depth)
        keys = signals.keys[:, tokens.num_prefix :]
        return tokens.merge(energy_matching(keys, amount, margin, late == (self.order == "deit"), tokens.num_prefix))


def energy_matching(keys, r, margin, protect, num_prefix):
    """Which of the patches merge, from their keys (B, T, d): 2r <= T. No gradient flows.

    protect: only the 2r highest in energy take part, every second one of them going to the best of the others;
    otherwise all do, and the r best edges become merges.
    """
    patches = keys.shape[1]
    count = num_prefix + patches
    with torch.no_grad(), torch.autocast(keys.device.type, enabled=False):
        keys = normalize(keys)
        cosine = keys @ keys.transpose(1, 2)
        single = torch.promote_types(keys.dtype, torch.float32)
        order = best_first(F.elu(cosine - margin).mean(-1, dtype=single))
        # rows of the flattened batch, the highest energy first
        ordered = in_batch(order, count, num_prefix)
        last = 2 * r if protect else patches
        a, b, apart = ordered[:, :last:2], ordered[:, 1:last:2], ordered[:, last:]
        of_a, of_b = order[:, :last:2], order[:, None, 1:last:2]
        best, to = take(cosine, of_a).gather(2, of_b.expand(-1, of_a.shape[1], -1)).max(dim=2)
        if not protect:
            edges = best_first(best)
            a = a.gather(1, edges)
            a, apart, to = a[:, :r], a[:, r:], to.gather(1, edges[:, :r])
    return Matching.of_rows(with_prefix(count, num_prefix, apart, b), a, to, count, num_prefix + apart.shape[1])
