"""Connected parts of a grid of patches, labelled on the device without a read of it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.tokens.constants import positions, remembered


def grid_components(right: Tensor, down: Tensor) -> Tensor:
    """(B, H·W) int64: for every cell of a grid, in raster order, the smallest cell that it is connected with.

    right: (B, H, W - 1) bool, whether a cell is joined with the one to its right. down: (B, H - 1, W) with that below.
    FastSV (Zhang, Azad and Hu, 2020): labels are hooked to the smallest of their neighbours' and jump along, so that
    the rounds that are needed grow with the logarithm of the cells.
    """
    batch, rows, columns = len(right), right.shape[1], down.shape[2]
    cells = rows * columns
    parent = grand = positions(0, cells, 1, right.device).expand(batch, -1)
    # of every cell the four around it, itself in place of those that it is not joined with
    joins = [F.pad(right, (0, 1)), F.pad(right, (1, 0)), F.pad(down, (0, 0, 0, 1)), F.pad(down, (0, 0, 1, 0))]
    steps = torch.stack([join.flatten(1) for join in joins], 2) * neighbour_steps(columns, right.device)
    around = (parent[..., None] + steps).flatten(1)
    for _ in range(math.ceil(math.log(max(cells, 2), 1.5)) + 2):
        least = torch.minimum(grand.gather(1, around).view(batch, cells, 4).amin(2), grand)
        parent = torch.minimum(parent.scatter_reduce(1, parent, least, "amin"), least)
        grand = parent.gather(1, parent)
    return grand


@remembered
def neighbour_steps(columns: int, device: torch.device) -> Tensor:
    """(4,) int64: from a cell to that on its right, on its left, below and above it."""
    return torch.tensor([1, -1, columns, -columns], device=device)
