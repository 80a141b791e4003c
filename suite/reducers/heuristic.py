"""The middle of the image: a floor that looks at nothing but where patches are."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import remembered


def distance_l1(down, right):
    return down.abs() + right.abs()


def distance_l2(down, right):
    return down * down + right * right  # its square: exact in integers


def distance_linf(down, right):
    return torch.maximum(down.abs(), right.abs())


METRICS = {"l1": distance_l1, "l2": distance_l2, "linf": distance_linf}


@register("heuristic")
class Heuristic(Reducer):
    """Keep the patches within a radius of the image's centre, the radius set by the rate; order kept.

    Source: the fixed patterns of Haurum et al., ICCV-W 2023, arXiv 2308.04657. Patches at the same distance go in
    raster order, so that any count can be met.

    When: a floor is wanted: what does a method gain by looking at the image?

    metric: 'l2' (a disc), 'l1' (a diamond) or 'linf' (a square).
    """

    rates = ("keep", "r")
    staged = True
    reads_sizes = False
    in_branches = True

    def __init__(self, metric: str = "l2") -> None:
        super().__init__()
        if metric not in METRICS:
            raise ValueError(f"metric={metric!r} is unknown; use {', '.join(METRICS)}")
        self.metric = metric

    def after_attention(self, tokens, signals, amount):
        (rows, columns), patches = signals.grid, int(tokens.origin) - tokens.num_prefix  # a tracer hands out tensors
        if rows * columns != patches:
            raise ValueError(f"'heuristic' needs all {rows * columns} patches of the image, not {patches} of them")
        staying = central(rows, columns, self.metric, tokens.num_patches, amount, tokens.x.device)
        return tokens.keep(tokens.num_prefix + staying.expand(tokens.x.shape[0], -1))


@remembered
def central(rows, columns, metric, count, amount, device):
    """(K,) int64 positions among the `count` most central patches of those that stay when `amount` go; order kept."""
    place = torch.arange(rows * columns, device=device)
    down, right = 2 * (place // columns) - (rows - 1), 2 * (place % columns) - (columns - 1)
    order = METRICS[metric](down, right).argsort(stable=True)
    # what is left of earlier blocks are the first `count` of this order too, in raster order
    present = order[:count].sort().values
    return order.argsort()[present].argsort(stable=True)[: count - amount].sort().values
