"""Token Downsampling."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import first_rows, remembered


@register("todo")
class ToDo(Reducer):
    """Self-attention of all queries to the keys and values of an even sub-grid of the tokens; nothing is matched.

    Source: Smith et al., IJCAI 2024 (demo), arXiv 2402.13573. The sub-grid has the shape of the grid and as near to the
    share of its tokens that is to stay as can be had: r=0.75 is the paper's factor 2. The same at all time steps.

    When: a denoiser's pictures are large, so that attention is what takes time.
    """

    keys_values = True
    reads_sizes = False

    def amount_in_branch(self, fraction, grid):
        if fraction == 0:
            return 0
        rows, columns = subgrid(grid, (1 - fraction) * grid[0] * grid[1])
        return grid[0] * grid[1] - rows * columns

    def before_branch(self, tokens, signals, amount):
        smaller = subgrid(signals.grid, tokens.num_patches - amount)
        rows = nearest_rows(signals.grid, smaller, tokens.x.shape[0], tokens.count, tokens.num_prefix, tokens.x.device)
        return tokens.keep_rows(rows)


def subgrid(grid: tuple[int, int], count: float) -> tuple[int, int]:
    """Rows and columns of the grid of about the same shape whose number of tokens is nearest to `count`."""
    rows, columns = grid
    shapes = [(down, max(1, round(columns * down / rows))) for down in range(1, rows + 1)]
    shapes += [(max(1, round(rows * across / columns)), across) for across in range(1, columns + 1)]
    return min(shapes, key=lambda shape: (abs(shape[0] * shape[1] - count), shape))


@remembered
def nearest_rows(grid, smaller, batch, count, num_prefix, device):
    """(B, h' w') rows of the flattened batch: place i of n stands for floor((i + 1/2) m / n) of m, down and across."""
    down, across = ((2 * torch.arange(n, device=device) + 1) * m // (2 * n) for m, n in zip(grid, smaller, strict=True))
    return first_rows(batch, count, num_prefix, device) + (down[:, None] * grid[1] + across).flatten()
