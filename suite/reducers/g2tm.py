"""G2TM: parts of the image whose patches are alike from neighbour to neighbour become one token each."""

import torch
import torch.nn.functional as F

from suite.reducers.base import Reducer, register
from suite.tokens.components import grid_components
from suite.tokens.grouping import full_precision
from suite.tokens.padding import padded

ATTENTION = {"plain": False, "proportional": True, "inverse": -1.0}


@register("g2tm")
class G2TM(Reducer):
    """Join neighbours in the grid that are more alike than the rate's threshold; each connected part is one token.

    Source: Bercy et al., VISAPP 2026. Patches that touch by a side are joined if the cosine of their residual streams
    is above tau. A part is the plain mean of its patches and stands where its first one did. Acts once, in the second
    block, unless the rate names others; in a later one, parts are neighbours if any of their patches are (ours).
    Samples of a batch are padded to the longest one, and nobody attends to padding.

    When: masks are made of images with large even parts, and each may keep as many tokens as it needs.

    attention: 'plain'; 'proportional' or 'inverse' attends, in the blocks after, more or less to what stands for more.
    """

    rates = ("tau",)
    input_dependent = True
    reads_sizes = False

    def __init__(self, attention: str = "plain") -> None:
        super().__init__()
        if attention not in ATTENTION:
            raise ValueError(f"attention={attention!r} is none of {', '.join(ATTENTION)}")
        self.proportional_attention = ATTENTION[attention]

    def active_blocks(self, kind, depth):
        return (min(1, depth - 1),)

    def after_attention(self, tokens, signals, amount):
        prefix, (rows, columns) = tokens.num_prefix, signals.grid
        if tokens.origin - prefix != rows * columns:
            raise ValueError(f"'g2tm' joins neighbours of {rows} x {columns} patches, not {tokens.origin - prefix}")
        patches = tokens.spread(tokens.x)[:, prefix:] if tokens.steps else tokens.x[:, prefix:]
        with torch.no_grad(), torch.autocast(patches.device.type, enabled=False):
            label = grid_components(*joined(patches.unflatten(1, signals.grid), signals.threshold))
            first = label == torch.arange(label.shape[1], device=label.device)
            places, valid = padded(first)
            part = (first.cumsum(1) - 1).gather(1, label)
            if valid is None and places.shape[1] == tokens.num_patches:  # nobody is joined
                return tokens
            owner = tokens.owner[:, prefix:] - prefix
            target = torch.zeros_like(tokens.x[:, prefix:, 0], dtype=torch.int64).scatter_(1, owner, part)
        means = part_means(patches, part, places.shape[1])
        return tokens.assign(means, target, valid)


def joined(grid, tau):
    """(B, H, W, C) -> (B, H, W - 1) and (B, H - 1, W) bool: what is alike to the right of it, and below it."""
    grid = full_precision(grid)
    right = F.cosine_similarity(grid[:, :, 1:], grid[:, :, :-1], dim=3)
    down = F.cosine_similarity(grid[:, 1:], grid[:, :-1], dim=3)
    return right > tau, down > tau


def part_means(x, part, count):
    """(B, T, C) and (B, T) in [0, count) -> (B, count, C) plain means; of a part without patches 0."""
    index = part[..., None].expand(-1, -1, x.shape[2])
    x = full_precision(x)
    total = x.new_zeros(len(x), count, x.shape[2]).scatter_add(1, index, x)
    members = x.new_zeros(len(x), count).scatter_add(1, part, torch.ones_like(part, dtype=x.dtype))
    return total / members.clamp(min=1)[..., None]
