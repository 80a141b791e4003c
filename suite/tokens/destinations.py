"""Destinations on a grid of tokens: one in every window, drawn; all other tokens may be merged into them.

Source: Bolya & Hoffman, CVPR-W 2023, arXiv 2303.17604 (ToMe for Stable Diffusion), section 4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from suite.tokens.constants import remembered
from suite.tokens.grouping import Matching
from suite.tokens.matching import nearest_matching
from suite.tokens.sample_rng import MASK, PRIME, numbers, scramble

Grid = tuple[int, int]
Draw = Callable[[Tensor, int, int, int], Tensor]
"""(key (B, 1), windows, seed, block) -> (B, windows) int64, 0 or more."""


def draw_in_windows(key: Tensor, windows: int, seed: int, block: int) -> Tensor:
    """(B, 1) int64 keys, equal for all samples of a time step -> (B, windows) int64 below 2^32.

    A pure function of seed, key, block and window: the same on every device, in every batch, whatever ran before.
    """
    return scramble((numbers(windows, seed, block, key.device) + PRIME * key) & MASK)


def windows_of(grid: Grid, stride: Grid) -> Grid:
    """Rows and columns of whole windows of `stride` tokens; what is beyond the last of them belongs to none."""
    return grid[0] // stride[0], grid[1] // stride[1]


def num_sources(grid: Grid, stride: Grid) -> int:
    """How many tokens are no destination, so that as many can be merged; 0 where there is no window."""
    down, across = windows_of(grid, stride)
    return grid[0] * grid[1] - down * across if down * across else 0


def split_grid(draws: Tensor, grid: Grid, stride: Grid, num_prefix: int = 0) -> tuple[Tensor, Tensor]:
    """(B, W) draws -> positions of all patches in ascending order: sources (B, N - W) and destinations (B, W).

    Draw v of window (i, j) of stride (sy, sx) is the token in row i sy + v // sx and column j sx + v % sx of the grid,
    v taken modulo sx sy. num_prefix: tokens before the patches.
    """
    (rows, columns), (tall, wide) = grid, stride
    v = draws % (tall * wide)
    place = corners(grid, stride, draws.device) + v // wide * columns + v % wide
    ones = torch.ones_like(place)
    taken = torch.zeros(len(draws), rows * columns, dtype=ones.dtype, device=ones.device).scatter(1, place, ones)
    order = num_prefix + taken.argsort(dim=1, stable=True)
    sources = rows * columns - draws.shape[1]
    return order[:, :sources], order[:, sources:]


def match_to_destinations(
    metric: Tensor, amount: int, num_prefix: int, grid: Grid, stride: Grid, draws: Tensor
) -> Matching:
    """The `amount` sources most alike to a destination are merged into it; prefix tokens are neither.

    metric: (B, P + N, D) what similarity (cosine) is measured on, in float32 at least.
    """
    sources, targets = split_grid(draws, grid, stride, num_prefix)
    metric = metric.to(torch.promote_types(metric.dtype, torch.float32))
    return nearest_matching(metric, min(amount, sources.shape[1]), num_prefix, sources, targets)


@remembered
def corners(grid: Grid, stride: Grid, device: torch.device) -> Tensor:
    """(W,) int64 position of the upper left token of every window, row by row."""
    down, across = windows_of(grid, stride)
    first = torch.arange(down, device=device)[:, None] * stride[0] * grid[1]
    return (first + torch.arange(across, device=device) * stride[1]).flatten()
