"""The middle of the image: a floor that looks at nothing but where patches are."""

from math import isqrt

import torch

from suite.reducers.base import Reducer, register


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
    raster order, so that any count can be met. Images of another size than the model's have to be square.

    metric: 'l2' (a disc), 'l1' (a diamond) or 'linf' (a square).
    """

    rates = ("keep", "r")
    staged = True

    def __init__(self, metric: str = "l2") -> None:
        super().__init__()
        if metric not in METRICS:
            raise ValueError(f"metric={metric!r} is unknown; use {', '.join(METRICS)}")
        self.metric = metric
        self.grids: dict[int, tuple[int, int]] = {}

    def build(self, layout, stages):
        if layout.grid is not None:
            self.grids[layout.num_patches] = layout.grid
        self.grid(layout.num_patches)

    def grid(self, patches):
        """(rows, columns) of so many patches: the model's own grid, or a square. ValueError where it is neither."""
        side = isqrt(patches)
        if patches in self.grids or side * side == patches:
            return self.grids.get(patches, (side, side))
        raise ValueError(f"'heuristic' knows no grid of {patches} patches; use square images, or the model's own size")

    def after_attention(self, tokens, signals, amount):
        rows, columns = self.grid(int(tokens.origin) - tokens.num_prefix)  # a tracer hands out tensors
        count = tokens.count - tokens.num_prefix
        place = torch.arange(rows * columns, device=tokens.x.device)
        down, right = 2 * (place // columns) - (rows - 1), 2 * (place % columns) - (columns - 1)
        order = METRICS[self.metric](down, right).argsort(stable=True)
        # what is left of earlier blocks are the first `count` of this order too, in raster order
        present = order[:count].sort().values
        staying = order.argsort()[present].argsort(stable=True)[: count - amount].sort().values
        return tokens.keep(tokens.num_prefix + staying.expand(tokens.x.shape[0], -1))
