"""The order of a space-filling curve: patches that are near in the image are mostly near in it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from suite.tokens.constants import remembered
from suite.tokens.state import Tokens

Vector = tuple[int, int]  # columns to the right, rows down


def curve_rows(tokens: Tokens, grid: tuple[int, int]) -> Tensor | None:
    """(B, T) rows of the flattened batch that hold the patches in the order of the curve; None: they stand in it.

    Methods that order patches along a curve do so once, before the first block. Blocks do not care for the order, so
    it is enough to take it where tokens are first taken out; what stays keeps it. ValueError for a backbone whose first
    block is entered by other tokens than the patches of `grid`, its rows and columns.
    """
    if tokens.steps:
        return None
    if math.prod(grid) != tokens.num_patches:
        raise ValueError(f"a curve needs all {math.prod(grid)} patches of the image, not {tokens.num_patches} of them")
    return rows_along_curve(*grid, tokens.x.shape[0], tokens.num_prefix, tokens.x.device)


@remembered
def rows_along_curve(height: int, width: int, batch: int, num_prefix: int, device: torch.device) -> Tensor:
    order = torch.tensor(curve_order(height, width), device=device) + num_prefix
    return order + torch.arange(batch, device=device)[:, None] * (num_prefix + height * width)


def curve_order(height: int, width: int) -> list[int]:
    """Cells of a grid, numbered in raster order, as the generalised Hilbert curve visits them: each once, from (0, 0).

    Sides may be any; a Hilbert curve proper has sides that are powers of two. Where a side is odd and the other even,
    one step may be diagonal, all others go to a neighbour.
    """
    across, down = (width, 0), (0, height)
    cells = visit((0, 0), across, down) if width >= height else visit((0, 0), down, across)
    return [row * width + column for column, row in cells]


def visit(start: Vector, along: Vector, beside: Vector) -> Iterator[Vector]:
    """(column, row) of the cells of a rectangle, from the corner `start` to the other end of the side `along`."""
    length, breadth = abs(sum(along)), abs(sum(beside))
    if breadth == 1 or length == 1:
        side = along if breadth == 1 else beside
        yield from (add(start, times(unit(side), step)) for step in range(abs(sum(side))))
    elif 2 * length > 3 * breadth:  # two halves, one behind the other
        half = even_half(along, length)
        yield from visit(start, half, beside)
        yield from visit(add(start, half), less(along, half), beside)
    else:  # up one quarter, along the far half, down the other quarter
        part, half = halved(along), even_half(beside, breadth)
        yield from visit(start, half, part)
        yield from visit(add(start, half), along, less(beside, half))
        end = add(add(start, less(along, unit(along))), less(half, unit(beside)))
        yield from visit(end, times(half, -1), times(less(along, part), -1))


def even_half(side: Vector, length: int) -> Vector:
    """Half of a side, an even number of cells where that is possible."""
    half = halved(side)
    return add(half, unit(side)) if sum(half) % 2 and length > 2 else half


def halved(vector: Vector) -> Vector:
    return vector[0] // 2, vector[1] // 2


def unit(vector: Vector) -> Vector:
    return (vector[0] > 0) - (vector[0] < 0), (vector[1] > 0) - (vector[1] < 0)


def add(a: Vector, b: Vector) -> Vector:
    return a[0] + b[0], a[1] + b[1]


def less(a: Vector, b: Vector) -> Vector:
    return a[0] - b[0], a[1] - b[1]


def times(vector: Vector, factor: int) -> Vector:
    return vector[0] * factor, vector[1] * factor
