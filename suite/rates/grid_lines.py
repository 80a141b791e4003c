"""Grids of patches that whole rows and columns are taken out of."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt, prod

from suite.errors import RequestError

Grid = tuple[int, int]


def grid_of_patches(known: Grid | None, patches: int) -> Grid:
    """`known`, or the square of so many patches. RequestError where they are neither."""
    grid = known or (isqrt(patches), isqrt(patches))
    if prod(grid) != patches:
        raise RequestError(
            f"{patches} patches are no grid of {grid[0]} x {grid[1]}, of which rows and columns could be taken out; "
            "use a method that keeps no grid"
        )
    return grid


def least_grid(grid: Grid) -> Grid:
    """What is left where every second row and column goes."""
    rows, columns = grid
    return rows - rows // 2, columns - columns // 2


def nearest_grid(grid: Grid, patches: int) -> Grid:
    """Of `thinner_grids` the one nearest to so many patches, of two the smaller."""
    return min(thinner_grids(grid), key=lambda left: (abs(prod(left) - patches), left))


def thinner_grids(grid: Grid) -> Iterator[Grid]:
    """(rows, columns), a line fewer each time, down to `least_grid`: such that the shape stays nearest to what it was.

    Where nothing else decides, a column goes first.
    """
    (rows, columns), (least_rows, least_columns) = grid, least_grid(grid)
    while True:
        yield rows, columns
        if columns > least_columns and (columns * grid[0] >= rows * grid[1] or rows == least_rows):
            columns -= 1
        elif rows > least_rows:
            rows -= 1
        else:
            return
