"""SiT: self-slimmed Vision Transformer."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from suite.reducers.base import Reducer, register
from suite.tokens.grouping import full_precision


class Slimming(nn.Module):
    """The token slimming module of one stage, named as the authors name it."""

    def __init__(self, most: int, width: int) -> None:
        super().__init__()
        hidden = width // 2
        self.weight = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, most))
        self.scale = nn.Parameter(torch.ones(1, 1, 1))

    def forward(self, x, count):
        """Patches (B, T, C) -> (B, count, T) shares, float32 at least, that sum to 1 over the patches."""
        last = cast(nn.Linear, self.weight[3])
        logits = F.linear(self.weight[:3](x), last.weight[:count], last.bias[:count])
        return (full_precision(logits) * full_precision(self.scale)).softmax(dim=1).transpose(1, 2)


@register("sit")
class SiT(Reducer):
    """Replace the patches by M mixtures of all of them, with shares that a small network gives every patch.

    Source: the token slimming module of Zong et al., ECCV 2022, arXiv 2111.12624, in stages as in Haurum et al., ICCV-W
    2023, arXiv 2308.04657: shares are the softmax over patches of a network of one hidden layer (width C/2) on
    the normed patch, times a learned scalar; the residual stream itself is mixed. Every stage has one output per patch
    of the image that the model was built for, and uses the first M. A patch counts as part of the token that it has
    the largest share in. Means something only once it is trained.

    When: the model can be trained with it.
    """

    rates = ("keep", "r")
    staged = True
    learned = "assignment"
    exact_groups = False

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()

    def build(self, layout, stages):
        self.grow(self.stages, stages, lambda: Slimming(layout.num_patches, layout.width))

    def before_block(self, tokens, signals, amount):
        prefix, stage = tokens.num_prefix, self.stages[signals.stage]
        count, most = tokens.count - tokens.num_prefix - amount, stage.weight[3].out_features
        if count > most:
            raise ValueError(f"'sit' has {most} outputs, but {count} are needed; build it for larger images")
        x = tokens.x[:, prefix:]
        share = stage(x, count)
        with torch.autocast(x.device.type, enabled=False):
            mixed = share @ full_precision(x)
        return tokens.assign(mixed, share.argmax(dim=1))
