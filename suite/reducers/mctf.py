"""MCTF: multi-criteria token fusion with one-step-ahead attention."""

import torch
import torch.nn.functional as F

from suite.reducers.base import GroupedAttention, Reducer, register
from suite.tokens.grouping import Matching, full_precision, group_max

SITES = {0: "after_block", 1: "inside_attention", 2: "before_block"}
FLOOR = 10
UNATTENDED = 1e-30  # attention that underflowed to 0 would leave 0/0 for a score and for an average


@register("mctf")
class MCTF(Reducer):
    """Fuse tokens that are similar, little attended to and small, matched both ways, by the attention about to run.

    Source: Lee, Choi and Kim, CVPR 2024, arXiv 2403.10030. r counts tokens of every block but the first, at least ten
    stay; r=0.35@3,6,9 takes that fraction out.

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
            sizes = tokens.sizes
            weight = received * sizes / sizes.amax(1, keepdim=True)
            if self.pooling in (0, 3):
                weight = sizes if self.pooling == 0 else torch.ones_like(sizes)
        fused = group_max(tokens.x, matching) if self.pooling == 2 else None
        return tokens.merge(matching, weight=weight, x=fused), matching, weight

    def scores(self, tokens, received):
        """(B, A, B') attractiveness of every pair of an even and an odd place; only the order within it matters."""
        metric = F.normalize(full_precision(tokens.x), dim=-1, eps=1e-12)
        scores = metric.new_ones(())
        if self.tau_sim:
            scores = (metric[:, ::2] @ metric[:, 1::2].transpose(1, 2) + 1) / 2
            scores = scores if self.tau_sim == 1 else scores.clamp(min=0) ** (1 / self.tau_sim)
        # 1/a and 1/s by their maxima: the same order, and no overflow
        own = torch.ones_like(received)
        if self.tau_info:
            own = (received.amin(1, keepdim=True) / received) ** (1 / self.tau_info)
        if self.tau_size and tokens.size is not None:
            own = own * (tokens.size.amin(1, keepdim=True) / tokens.size) ** (1 / self.tau_size)
        return scores * own[:, ::2, None] * own[:, None, 1::2]


def match(scores, r, protected, bidirectional):
    """Fuse r tokens by scores (B, A, B') between even places A and odd places B': half from A to B', half back.

    Output order: prefix, what is left of A ascending, what is left of B' by descending score (one way: ascending).
    """
    scores = scores.clone()
    shielded_a, shielded_b = (protected + 1) // 2, protected // 2
    scores[:, :shielded_a] = -torch.inf
    scores[:, :, :shielded_b] = -torch.inf
    forth = r // 2 if bidirectional else r
    to_b = scores.argmax(-1)
    order = best_first(scores.gather(-1, to_b[..., None])[..., 0])
    sent_a, left_a = order[:, :forth], order[:, forth:].sort(dim=-1).values
    odd = torch.arange(scores.shape[2], device=scores.device).expand(len(scores), -1)
    to_a, sent_b, left_b = odd, odd[:, :0], odd[:, shielded_b:]
    if bidirectional:
        # the same scores again: what a token of B' has taken in goes along with it
        back = scores.take_along_dim(left_a[..., None], 1)
        to_a = back.argmax(1)
        order = best_first(back.gather(1, to_a[:, None])[:, 0])
        # shielded places of B' have no score at all and come last
        sent_b, left_b = order[:, : r - forth], order[:, r - forth : order.shape[1] - shielded_b]
    left_a = left_a[:, shielded_a:]

    prefix = torch.arange(protected, device=scores.device).expand(len(scores), -1)
    first_b = protected + left_a.shape[1]
    place = torch.arange(first_b, first_b + left_b.shape[1], device=scores.device).expand(len(scores), -1)
    place_b = torch.zeros_like(to_a).scatter(1, left_b, place)
    place_b = place_b.scatter(1, sent_b, to_a.gather(1, sent_b) - shielded_a + protected)
    return Matching(
        kept=torch.cat([prefix, 2 * left_a, 2 * left_b + 1], dim=1),
        source=torch.cat([2 * sent_a, 2 * sent_b + 1], dim=1),
        target=place_b.gather(1, torch.cat([to_b.gather(1, sent_a), sent_b], dim=1)),
    )


def best_first(score):
    """(B, K) -> places by descending score; ties keep their order."""
    return score.argsort(dim=-1, descending=True, stable=True)
