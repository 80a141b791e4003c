"""Sinkhorn: patches are transported to learned centres."""

import torch
import torch.nn.functional as F
from torch import nn

from suite.reducers.base import Reducer, register
from suite.tokens.grouping import full_precision


@register("sinkhorn")
class Sinkhorn(Reducer):
    """Replace the patches by what an optimal transport brings to M learned centres.

    Source: the Sinkhorn tokenizer in stages (Haurum et al., ICCV-W 2023, arXiv 2308.04657), whose transport is that of
    Mialon et al., ICLR 2021, arXiv 2006.12065. Patches and centres have unit length and are as near as their cosine;
    every centre receives a mass of 1, and all patches give about the same. The result is made of unit patches, so
    their lengths are lost. No gradient flows through the lengths of the centres. Every stage has one centre per patch
    of the image that the model was built for, and uses the first M. A patch counts as part of the token that takes
    most of it. Means something only once it is trained.

    When: the model can be trained with it.

    eps: weight of entropy, in units of cosine. iterations: of Sinkhorn's scaling.
    """

    rates = ("keep", "r")
    staged = True
    learned = "centres"
    exact_groups = False

    def __init__(self, eps: float = 1.0, iterations: int = 3) -> None:
        super().__init__()
        if eps <= 0 or iterations < 1:
            raise ValueError(f"eps={eps:g}, iterations={iterations}: eps must be above 0, iterations at least 1")
        self.eps, self.iterations = float(eps), iterations
        self.centres = nn.ParameterList()

    def build(self, layout, stages):
        self.grow(self.centres, stages, lambda: nn.Parameter(torch.randn(layout.num_patches, layout.width)))

    def before_block(self, tokens, signals, amount):
        count, centres = tokens.count - tokens.num_prefix - amount, self.centres[signals.stage]
        if count > len(centres):
            raise ValueError(
                f"'sinkhorn' has {len(centres)} centres, but {count} are needed; build it for larger images"
            )
        with torch.autocast(tokens.x.device.type, enabled=False):
            x = F.normalize(full_precision(tokens.x[:, tokens.num_prefix :]), dim=2, eps=1e-12)
            centres = full_precision(centres[:count]).to(x.dtype)
            centres = centres / centres.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)
            share = transport(centres @ x.transpose(1, 2), self.eps, self.iterations)
            mixed = share @ x
        return tokens.assign(mixed, share.argmax(dim=1))


def transport(likeness, eps, iterations):
    """(B, M, T) -> (B, M, T) masses: every row sums to 1, every column to about M/T. Scaling is done in logarithms."""
    plan = likeness / eps
    for _ in range(iterations):  # columns to equal sums, of whatever size, then rows to 1
        plan = plan.log_softmax(dim=1).log_softmax(dim=2)
    return plan.exp()
