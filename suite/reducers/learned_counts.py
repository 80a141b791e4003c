"""What DiffRate learns: how many patches stay in each block, and the merge by which it is taught."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suite.reducers.score_predictor import straight_through
from suite.reducers.squeeze import NO_HOST, likeness_to_hosts
from suite.tokens.grouping import full_precision


class LearnedCounts(nn.Module):
    """How many patches stay in each block: a distribution over patches, patches - step, ... for every block, learned.

    The number is its mean, rounded up; the gradient is the mean's (straight-through). At first all counts are equally
    likely. Source: DiffRate (Chen et al., ICCV 2023, arXiv 2305.17997).
    """

    def __init__(self, depth: int, patches: int, step: int) -> None:
        super().__init__()
        self.patches, self.step = patches, step
        self.logits = nn.Parameter(torch.zeros(depth, len(range(patches, 0, -step))))

    @property
    def counts(self) -> Tensor:
        """(K,) float64 numbers of patches that are chosen among."""
        return torch.arange(self.patches, 0, -self.step, device=self.logits.device, dtype=torch.float64)

    def expected(self) -> Tensor:
        """(L,) float64 whole numbers of patches that stay in each block, with their gradient."""
        mean = self.logits.double().softmax(dim=1) @ self.counts
        return straight_through((mean - 1e-6).ceil(), mean)  # a rounding error is no token

    def stays(self, block: int) -> Tensor:
        """(patches,) of the logits' type, 1 where the first, second, ... best patch stays in a block, else 0.

        The gradient is that of the probability that a count is larger than the patch's place.
        """
        place = torch.arange(self.patches, device=self.logits.device)
        likely = (self.counts > place[:, None]).double() @ self.logits[block].double().softmax(dim=0)
        return straight_through((place < self.expected()[block]).to(self.logits), likely.to(self.logits))


def merge_softly(patches: Tensor, sizes: Tensor, staying: Tensor, leaving: Tensor) -> tuple[Tensor, Tensor]:
    """DiffRate's merge where nobody goes: every patch that leaves adds to the most similar of those that stay.

    patches (B, T, C), sizes (B, T); staying, leaving (B, T) 1 or 0. Returns features, plain means of the groups, and
    sizes, to which a token brings its own times the cosine, at least 1. No gradient flows through who goes where; that
    of `leaving` also reaches tokens that stay, as in `squeeze_softly`.
    """
    with torch.autocast(patches.device.type, enabled=False):
        wide = full_precision(patches)
        with torch.no_grad():
            cosine, host = likeness_to_hosts(F.normalize(wide, dim=2, eps=1e-12), staying).max(dim=2)
        share = F.one_hot(host, wide.shape[1]) * (leaving * (cosine > NO_HOST))[..., None]
        mixed = (wide + share.transpose(1, 2) @ wide) / (1 + share.sum(1)[..., None])
        brought = (sizes * cosine).clamp(min=1)
        return mixed.to(patches.dtype), sizes + (share * brought[..., None]).sum(1)
