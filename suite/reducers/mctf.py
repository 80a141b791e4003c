"""MCTF: multi-criteria token fusion with one-step-ahead attention."""

import torch

from suite.reducers.base import GroupedAttention, Reducer, register
from suite.tokens.constants import ones, positions, remembered, rows
from suite.tokens.grouping import Matching, group_max, in_batch, with_prefix
from suite.tokens.matching import ascending
from suite.tokens.products import scaled_product
from suite.tokens.ranking import largest_first

SITES = {0: "after_block", 1: "inside_attention", 2: "before_block"}
FLOOR = 10
UNATTENDED = 1e-30  # attention that underflowed to 0 would leave 0/0 for a score and for an average
SHRUNK = 2.0**-10  # of products of tokens: in half precision those of the longest would overflow


@register("mctf")
class MCTF(Reducer):
    """Fuse tokens that are similar, little attended to and small, matched both ways, by the attention about to run.

    Source: Lee, Choi and Kim, CVPR 2024, arXiv 2403.10030. r counts tokens of every block but the first, at least ten
    stay; r=0.35@3,6,9 takes that fraction out.

    When: the model can be fine-tuned with it, or batches are large: it computes the attention map.

    one_step_ahead: 1 fuses between QK^T and V with the attention of the tokens before; 2 attends again on the
    fused tokens; 0 fuses at the end of the block by that block's own attention.
    tau_sim, tau_info, tau_size: each criterion enters to the power 1/tau; 0 leaves it out.
    bidirectional: half of r goes from even to odd places, the other half back; False: all of it one way.
    pooling: 0 average by size, 1 by size and attention received, 2 maximum (rows of the map are averaged as by
    1), 3 plain average.
    """

    proportional_attention = True
    weighted_pooling = True
    reads_map = True
    formulation: str | None = "values spread to the original tokens, attention map kept"

    def __init__(
        self,
        one_step_ahead: int = 1,
        tau_sim: float = 1.0,
        tau_info: float = 20.0,
        tau_size: float = 40.0,
        bidirectional: bool = True,
        pooling: int = 1,
    ) -> None:
        super().__init__()
        if one_step_ahead not in SITES or pooling not in range(4):
            raise ValueError("one_step_ahead is 0, 1 or 2, and pooling 0, 1, 2 or 3")
        if min(tau_sim, tau_info, tau_size) < 0:
            raise ValueError("a temperature is positive, or 0 to leave its criterion out")
        self.one_step_ahead, self.bidirectional, self.pooling = one_step_ahead, bidirectional, pooling
        self.tau_sim, self.tau_info, self.tau_size = tau_sim, tau_info, tau_size
        if one_step_ahead != 1:
            self.formulation = None

    @property
    def site(self):
        return SITES[self.one_step_ahead]

    def active_blocks(self, kind, depth):
        return tuple(range(1, depth))

    def capacity(self, count, num_prefix):
        return max(0, min((count - num_prefix) // 2, count - FLOOR))

    def amount_for_fraction(self, fraction, count, num_prefix):
        return min(int((count - num_prefix) * fraction), (count - num_prefix) // 2)

    def inside_attention(self, tokens, signals, amount):
        return GroupedAttention(*self.fuse(tokens, signals, amount))

    def before_block(self, tokens, signals, amount):
        return self.fuse(tokens, signals, amount)[0]

    def after_block(self, tokens, signals, amount):
        return self.fuse(tokens, signals, amount)[0]

    def fuse(self, tokens, signals, amount):
        """-> tokens with `amount` fewer, the groups, and what each token weighed in its group (B, N)."""
        with torch.no_grad(), torch.autocast(tokens.x.device.type, enabled=False):
            received = signals.received.clamp(min=UNATTENDED)
            matching = match(self.scores(tokens, received), amount, tokens.num_prefix, self.bidirectional)
            weight = received if tokens.size is None else received * tokens.size
            if self.pooling in (0, 3):
                weight = tokens.sizes if self.pooling == 0 else ones(*received.shape, received.dtype, received.device)
        fused = group_max(tokens.x, matching) if self.pooling == 2 else None
        return tokens.merge(matching, weight=weight, x=fused), matching, weight

    def scores(self, tokens, received):
        """(B, A, B') attractiveness of every pair of an even and an odd place; only the order within it matters."""
        own = self.own(tokens, received)
        if self.tau_sim == 1:
            return similarity(tokens.x, own)
        scores = own.new_ones(())
        if self.tau_sim:
            scores = similarity(tokens.x, torch.ones_like(own)).clamp(min=0) ** (1 / self.tau_sim)
        return scores * own[:, ::2, None] * own[:, None, 1::2]

    def own(self, tokens, received):
        """(B, N) what a token brings to the score of every pair that it is in."""
        own = None
        if self.tau_info:  # 1/a by its maximum: the same order, and no overflow
            own = (received.amin(1, keepdim=True) / received) ** (1 / self.tau_info)
        if self.tau_size and tokens.size is not None:
            small = tokens.size ** (-1 / self.tau_size)
            own = small if own is None else own * small
        return ones(*received.shape, received.dtype, received.device) if own is None else own


def similarity(x, weight):
    """(B, A, B') (cosine + 1) / 2 of every pair of an even and an odd place, times the weights (B, N) of both.

    The product is in the precision of x (B, N, C), all else in that of the weights: lengths divide it afterwards.
    """
    length = torch.linalg.vector_norm(x, dim=2, dtype=weight.dtype).clamp(min=1e-12)
    of_a, of_b = (weight / length)[:, ::2, None], length[:, None, 1::2]
    product = scaled_product(x[:, ::2], x[:, 1::2], SHRUNK) * of_a
    shifted = torch.addcdiv((weight / 2)[:, ::2, None], product, of_b, value=0.5 / SHRUNK)
    return shifted * weight[:, None, 1::2]


def match(scores, r, protected, bidirectional):
    """Fuse r tokens by scores (B, A, B') >= 0 between even places A and odd places B': half from A to B', half back.

    Output order: prefix, what is left of A ascending, what is left of B' by descending score (one way: ascending).
    """
    (batch, evens, odds), device = scores.shape, scores.device
    shielded_a, shielded_b = (protected + 1) // 2, protected // 2
    forth = r // 2 if bidirectional else r
    best, to_b = scores[:, shielded_a:, shielded_b:].max(dim=2)
    order = largest_first(best)
    to_b = to_b.gather(1, order[:, :forth])
    # rows of A in the flattened batch of scores
    sent_a, left_a = in_batch(order, evens, shielded_a).tensor_split([forth], dim=1)
    left_a = ascending(left_a)
    free_b, stay_a = odds - shielded_b, left_a.shape[1]
    if bidirectional:
        # the same scores again: what a token of B' has taken in goes along with it
        back = scores.flatten(0, 1).index_select(0, left_a.flatten()).view(batch, stay_a, odds)
        best, place_b = back[:, :, shielded_b:].max(dim=1)
        sent_b, left_b = largest_first(best).tensor_split([r - forth], dim=1)
        after_a = positions(stay_a, stay_a + left_b.shape[1], 1, device).expand(batch, -1)
        into = place_b.scatter_(1, left_b, after_a).gather(1, torch.cat([to_b, sent_b], dim=1))
    else:
        left_b = positions(0, free_b, 1, device).expand(batch, -1)
        sent_b, into = left_b[:, :0], to_b + stay_a
    doubled = with_prefix(evens + odds, protected, left_a, left_b, sent_a, sent_b)
    first = row_offsets(batch, evens, odds, protected, (stay_a, left_b.shape[1], forth, sent_b.shape[1]), device)
    survivors = protected + stay_a + left_b.shape[1]
    return Matching.of_order(torch.add(first, doubled, alpha=2), survivors, into, evens + odds, protected)


@remembered
def row_offsets(batch, evens, odds, protected, counts, device):
    """(B, N) int64 what twice a row of the prefix, twice a row of A in the flattened batch of scores and twice a free
    place of B' lack to be rows of the flattened batch of tokens; A and B' by turns, `counts` of each."""
    count, sample = evens + odds, torch.arange(batch, device=device)[:, None]
    prefix = -rows(batch, count, 0, protected, 1, device)
    even, odd = sample * (count - 2 * evens), sample * count + 1 + 2 * (protected // 2)
    return torch.cat([prefix, *((even, odd)[turn % 2].expand(-1, many) for turn, many in enumerate(counts))], dim=1)
