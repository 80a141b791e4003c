"""PPT: token pruning and pooling, whichever an image calls for."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.grouping import Matching, in_batch, with_prefix
from suite.tokens.matching import bipartite_soft_matching
from suite.tokens.ranking import largest_first

THRESHOLD, PATCHES = 7e-5, 196


@register("ppt")
class PPT(Reducer):
    """Prune where the scores of an image's patches are spread, else merge similar ones: r tokens go either way.

    Source: Wu et al., 2023, arXiv 2310.01812. A patch's score is its class attention times the norm of its values, as a
    share of all patches' scores. An image whose scores have a variance (of a sample) below the threshold is merged as
    ToMe does it; of others the r patches of lowest score are dropped, and the rest stand by descending score. A list of
    r says what each block takes, wherever it acts; the authors' schedules hand it out over reducing blocks alone.

    When: nothing can be trained, and a data set has images to prune and images to merge.

    threshold: 0 always prunes. Default 7e-5, the authors' for DeiT-S off the shelf at 196 patches (6e-5 when
        fine-tuned), and (196 / T)^2 times that for images of T patches, as variances go.
    proportional_attention: False also forgets sizes, so that averages are plain.

    keep is the share of the patches present that each block keeps.
    """

    rates = ("r", "keep")
    staged = True
    needs_class_token = True

    def __init__(self, threshold: float | None = None, proportional_attention: bool = True) -> None:
        super().__init__()
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, (int, float))):
            raise ValueError(f"threshold={threshold!r} is no number")
        if threshold is not None and not threshold >= 0:
            raise ValueError(f"threshold={threshold!r}: a variance is never below 0, so 0 already prunes always")
        self.threshold = threshold
        self.proportional_attention = self.reads_sizes = proportional_attention

    def active_blocks(self, kind, depth):
        return super().active_blocks("keep", depth)

    def capacity(self, count, num_prefix):
        return (count - num_prefix) // 2

    def amount_for_keep(self, keep, stage, patches, origin):
        amount = patches - int(patches * keep)
        return min(amount, patches // 2) if keep >= 0.5 else amount  # of an odd number, half is kept and one

    def after_attention(self, tokens, signals, amount):
        prefix, count = tokens.num_prefix, tokens.count
        with torch.no_grad(), torch.autocast(tokens.x.device.type, enabled=False):
            share = shares_of_scores(signals.class_attention[:, prefix:], signals.value_norm[:, prefix:])
            spread = share.var(dim=1, keepdim=True) >= self.threshold_for(int(tokens.origin) - prefix)
            staying, leaving = in_batch(largest_first(share), count, prefix).tensor_split([-amount], dim=1)
            matching = bipartite_soft_matching(signals.keys, amount, prefix)
            merged_into, merged = matching.rows(count)
            kept = torch.where(spread, with_prefix(count, prefix, staying), merged_into)
            gone = torch.where(spread, leaving, merged)
        either = Matching.of_rows(kept, gone, matching.into, count, matching.first_target)
        return tokens.merge(either, plain=not self.proportional_attention, pruned=spread)

    def threshold_for(self, patches):
        """The option, or the authors' number for an image of so many patches."""
        return THRESHOLD * (PATCHES / patches) ** 2 if self.threshold is None else self.threshold


def shares_of_scores(attention, norms):
    """Class attention and norms of values, (B, T) each -> (B, T) scores that sum to 1, in float32 at least."""
    score = attention * norms
    return score / score.sum(dim=1, keepdim=True).clamp(min=torch.finfo(score.dtype).tiny)
