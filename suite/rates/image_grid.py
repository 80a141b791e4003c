"""What a rate means for the image itself: of a method that shrinks images, how many patches they are left with."""

from __future__ import annotations

from suite.errors import RequestError
from suite.rates.rate import FlopsTarget, ImageSide, KeptFraction, PatchGrid, Rate
from suite.rates.schedule import check_form
from suite.reducers.base import Reducer

Grid = tuple[int, int]


def shrunk_grid(rate: Rate | None, reducer: Reducer, full: Grid, patch: Grid) -> Grid:
    """Rows and columns of patches that an image of `full` ones is shrunk to; `full` where nothing is asked for.

    patch: (height, width) of one in pixels. The number along the shorter side is free, and that along the other the
    nearest to the image's shape. A kept fraction is of the patches: the nearest number of them that can be had, of two
    the smaller. RequestError for what no number of whole patches can give.
    """
    if rate is not None:
        check_form(rate, reducer)
    if rate is None or rate.is_zero:
        return full
    most, side = min(zip(full, patch, strict=True))
    if isinstance(rate, FlopsTarget):
        raise RequestError(f"rate {rate} is a target and no rate yet; suite.attach finds the rate that reaches it")
    if isinstance(rate, ImageSide):
        count, rest = divmod(rate.pixels, side)
        if rest or not 1 <= count <= most:
            near = {max(side, min(count, most) * side): None, min(count + 1, most) * side: None}
            sizes = " or ".join(f"side={pixels}" for pixels in near)
            raise RequestError(
                f"rate {rate}: {reducer.name!r} shrinks images of {most * side} pixels to whole patches of {side}; "
                f"use {sizes}"
            )
        return grid_of(count, full)
    if isinstance(rate, PatchGrid):
        if rate.patches > most:
            raise RequestError(
                f"rate {rate}: {reducer.name!r} only shrinks images, of {most} patches along the shorter side; use "
                f"grid={most} or less"
            )
        return grid_of(rate.patches, full)
    if isinstance(rate, KeptFraction) and not isinstance(rate.keep, tuple) and rate.blocks is None:
        wanted = rate.keep * full[0] * full[1]
        grids = [grid_of(count, full) for count in range(1, most + 1)]
        return min(grids, key=lambda grid: (abs(grid[0] * grid[1] - wanted), grid))
    raise RequestError(
        f"rate {rate} is of blocks, but {reducer.name!r} shrinks the image before all of them; use one number"
    )


def grid_of(count: int, full: Grid) -> Grid:
    """The grid of `count` patches along the shorter side that is nearest to the shape of `full`."""
    rows, columns = full
    if rows <= columns:
        return count, max(count, round(columns * count / rows))
    return max(count, round(rows * count / columns)), count
