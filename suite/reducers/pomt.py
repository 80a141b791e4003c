"""POMT: pruning one more token."""

import torch

from suite.reducers.base import register
from suite.reducers.prune_and_fuse import PruneAndFuse
from suite.tokens.grouping import in_batch, take_rows
from suite.tokens.ranking import largest_first


@register("pomt")
class POMT(PruneAndFuse):
    """Take R tokens out once, in an early block: keep what gets attention and has large values, average the others.

    Source: Eliopoulos et al., WACV 2025, arXiv 2407.05941. A patch's score is the largest attention over heads that
    each patch pays to it, summed and divided by the largest such sum, plus the share that the sum of its values, the
    largest of the heads per channel, has in a softmax over all tokens. Acts in block 3 unless the rate names others
    (r=56@2). The authors choose R for a device from latencies and accuracies that they measure beforehand; here R is
    the rate that you ask for. At least two patches stay beside the average, as in the authors' code.

    When: one device's latency is the aim: one early block acts, all others are as they were.

    per_batch: divide by the largest sum of the whole batch, as the authors' code does: an image's ranking then depends
        on the images beside it. Default: by the image's own largest, as their code does with one image.
    """

    rates = ("r",)
    reads_map = True

    def __init__(self, per_batch: bool = False) -> None:
        super().__init__()
        self.per_batch = per_batch

    def active_blocks(self, kind, depth):
        return (min(3, depth - 1),)

    def capacity(self, count, num_prefix):
        return super().capacity(count, num_prefix) - 1

    def best_first(self, tokens, signals):
        score = importance(signals.attention_map, signals.heads[2], tokens.num_prefix, self.per_batch)
        return in_batch(largest_first(score), tokens.count, tokens.num_prefix)

    def fused(self, tokens, signals, leaving):
        return take_rows(tokens.x, leaving).mean(1, keepdim=True)


def importance(attention, values, num_prefix, per_batch=False):
    """Attention (B, H, N, N) and values (B, H, N, d) -> (B, N - num_prefix) scores of the patches, float32 at least."""
    single = torch.promote_types(attention.dtype, torch.float32)
    received = attention[:, :, num_prefix:, num_prefix:].amax(1).sum(1, dtype=single)
    most = received.amax(1, keepdim=True)
    if per_batch and len(most):
        most = most.amax()
    worth = values.amax(1).sum(2, dtype=single).softmax(1)
    return received / most + worth[:, num_prefix:]
