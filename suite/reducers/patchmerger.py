"""PatchMerger: learned queries gather all patches into a few tokens."""

import torch
from torch import nn

from suite.reducers.base import Reducer, register
from suite.tokens.grouping import full_precision


class Merger(nn.Module):
    """Norm and queries of one stage."""

    def __init__(self, most: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(most, width) / width**0.5)


@register("patchmerger")
class PatchMerger(Reducer):
    """Replace the patches by M mixtures of all of them: softmax(Q LN(x)^T) LN(x) with M learned queries Q.

    Source: Renggli et al., 2022, arXiv 2202.12015, in stages as in Haurum et al., ICCV-W 2023, arXiv 2308.04657.
    Every stage has one query per patch of the image that the model was built for, and uses the first M. A patch counts
    as part of the token that it has the largest share in. Means something only once it is trained.

    When: the model can be trained with it.
    """

    rates = ("keep", "r")
    staged = True
    learned = "queries"
    exact_groups = False

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()

    def build(self, layout, stages):
        self.grow(self.stages, stages, lambda: Merger(layout.num_patches, layout.width))

    def before_block(self, tokens, signals, amount):
        prefix, stage = tokens.num_prefix, self.stages[signals.stage]
        count, most = tokens.count - tokens.num_prefix - amount, len(stage.queries)
        if count > most:
            raise ValueError(f"'patchmerger' has {most} queries, but {count} are needed; build it for larger images")
        with torch.autocast(tokens.x.device.type, enabled=False):
            x = full_precision(stage.norm(tokens.x[:, prefix:].to(stage.queries.dtype)))
            share = (full_precision(stage.queries[:count]) @ x.transpose(1, 2)).softmax(dim=2)
            mixed = share @ x
        return tokens.assign(mixed, share.argmax(dim=1))
