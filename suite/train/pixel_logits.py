"""Class scores of pixels, as a loss needs them: those of some pixels cost what these pixels cost."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Every fourth pixel each way, from a corner that is drawn anew for each batch: all pixels count alike in the long run,
# at a sixteenth of the cost.
STRIDE = 4


def pixel_logits(scores: Tensor, size: tuple[int, int], corner: tuple[int, int], stride: int = STRIDE) -> Tensor:
    """What `Segmenter.forward` says of every `stride`-th pixel from `corner` on.

    Scores of patches (B, K, h, w) to logits (B, K, ceil((H - top) / stride), ceil((W - left) / stride)). Bilinear
    enlargement is a matrix for rows and one for columns, of which only the rows that are asked for are multiplied.
    """
    rows, columns = (
        _enlargement(patches, pixels, scores)[:, first::stride]
        for patches, pixels, first in zip(scores.shape[-2:], size, corner)
    )
    return rows.T @ scores @ columns


def _enlargement(patches: int, pixels: int, like: Tensor) -> Tensor:
    """(patches, pixels) the matrix of bilinear enlargement of one side."""
    identity = torch.eye(patches, device=like.device, dtype=like.dtype)
    return interpolate(identity[None], pixels, mode="linear", align_corners=False)[0]
