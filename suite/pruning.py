"""What pruning methods share: the predictor that scores tokens, and the squeeze that saves what is pruned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from suite.pooling import full_precision, take
from suite.tokens import Matching, Tokens


class ScorePredictor(nn.Module):
    """Scores patch tokens by what each holds and by what all hold together.

    Source: DynamicViT (Rao et al., NeurIPS 2021, arXiv 2106.02034); TPS uses the same. Parameters are
    named as in both authors' checkpoints.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Patch tokens (B, T, C) -> (B, T) float32 at least, the logarithm of the probability that each is kept."""
        x = self.in_conv(x)
        half = x.shape[2] // 2
        local, everywhere = x[..., :half], full_precision(x[..., half:]).mean(1, keepdim=True)
        x = torch.cat([local, everywhere.to(x.dtype).expand(-1, x.shape[1], -1)], dim=2)
        return full_precision(self.out_conv(x)).log_softmax(dim=-1)[..., 0]


def squeeze(tokens: Tokens, staying: Tensor, leaving: Tensor) -> Tokens:
    """Fold every pruned token into the kept token that is most like it.

    staying (B, K), leaving (B, S): positions of all patch tokens; those that stay keep the order given. A host x with
    guests y of cosine c becomes (e x + sum e^c y) / (e + sum e^c), computed in float32 at least; a host without guests
    is copied bit for bit. A guest that is equally like several hosts goes to all of them and is owned by the first.
    Source: TPS (Wei et al., CVPR 2023, arXiv 2304.10716).
    """
    hosts, guests = take(tokens.x, staying), full_precision(take(tokens.x, leaving))
    with torch.autocast(tokens.x.device.type, enabled=False):
        wide = full_precision(hosts)
        likeness = unit(guests) @ unit(wide).transpose(1, 2)
        share = likeness.exp() * (likeness == likeness.amax(dim=2, keepdim=True))
        total = share.sum(1)[..., None]
        mixed = (math.e * wide + share.transpose(1, 2) @ guests) / (math.e + total)
    x = torch.where(total > 0, mixed.to(hosts.dtype), hosts)
    prefix = torch.arange(tokens.num_prefix, device=staying.device).expand(staying.shape[0], -1)
    matching = Matching(torch.cat([prefix, staying], 1), leaving, tokens.num_prefix + likeness.argmax(dim=2))
    return tokens.merge(matching, x=torch.cat([tokens.x[:, : tokens.num_prefix], x], dim=1))


def unit(x: Tensor) -> Tensor:
    """Rows over their norms, with the 1e-6 on the norm that the authors add."""
    return x / (x.norm(dim=2, keepdim=True) + 1e-6)
