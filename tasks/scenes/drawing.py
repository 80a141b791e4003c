"""Geometry and paint of the embedded scenes: random numbers, shapes as distance fields, textures, light, noise.

Everything is float64 until the final rounding to uint8. Only element-wise arithmetic is used (no BLAS, whose
summation order differs between machines), and random numbers come from raw PCG64 words, whose stream numpy
guarantees, not from ``Generator`` methods, whose streams may change between numpy versions.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Floats = NDArray[np.float64]

SIDE = 112

SHAPES = ("disc", "square", "triangle", "star", "ring", "cross", "hexagon", "heart")
# Hue in degrees: far enough apart that +-7 degrees of jitter never makes two names overlap.
COLOURS = {"red": 357.0, "orange": 28.0, "yellow": 55.0, "green": 125.0, "blue": 215.0, "purple": 285.0}
PATTERNS = ("plain", "cloudy", "striped", "checkered", "dotted", "wavy")

_ROWS: Floats
_COLS: Floats
_ROWS, _COLS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64) + 0.5


class Dice:
    """Uniform random numbers made from raw PCG64 words: same stream on every platform and numpy version."""

    def __init__(self, *entropy: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def array(self, *shape: int) -> Floats:
        """float64 in [0, 1) of the given shape."""
        words = self._bits.random_raw(int(np.prod(shape)))
        return ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * ((self._bits.random_raw() >> 11) * 2.0**-53)

    def below(self, n: int) -> int:
        return int(self.uniform(0, n))

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]

    def shuffled(self, items: Iterable[Item]) -> list[Item]:
        items = list(items)
        return [items[i] for i in np.argsort(self.array(len(items)), kind="stable")]

    def bell(self, *shape: int) -> Floats:
        """Nearly normal numbers with mean 0 and variance 1: the sum of the four 16-bit quarters of a word."""
        words: NDArray[np.uint64] = self._bits.random_raw(int(np.prod(shape)))
        first, second, third, fourth = ((words >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48))
        total = first + second + third + fourth
        bell: Floats = (total.astype(np.float64) / 65535.0 - 2.0) * 3.0**0.5
        return bell.reshape(shape)


def _box(u: Floats, v: Floats, half_u: float, half_v: float) -> Floats:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def _polygon(u: Floats, v: Floats, corners: int) -> Floats:
    angles = (np.arange(corners) + 0.5) * 2 * np.pi / corners - np.pi / 2  # a corner points up
    inner = np.cos(np.pi / corners)
    beyond: Floats = np.max([u * np.cos(a) + v * np.sin(a) for a in angles], axis=0) - inner
    return beyond


def _star(u: Floats, v: Floats) -> Floats:
    radius, sector, dent = np.hypot(u, v), np.pi / 5, 0.42
    angle = np.abs(np.mod(np.arctan2(u, -v) + sector, 2 * sector) - sector)
    edge_u, edge_v = dent * np.cos(sector) - 1.0, dent * np.sin(sector)
    length = np.hypot(edge_u, edge_v)
    across: Floats = ((radius * np.cos(angle) - 1.0) * edge_v - radius * np.sin(angle) * edge_u) / length
    return across


def _heart(u: Floats, v: Floats) -> Floats:
    half = 0.5
    lobes = np.hypot(np.abs(u) - half * 2**-0.5, v + half * 2**-0.5 - 0.1) - half
    return np.minimum(_box((u + v - 0.1) * 2**-0.5, (u - v + 0.1) * 2**-0.5, half, half), lobes)


def distance(shape: str, u: Floats, v: Floats) -> Floats:
    """Signed distance (or a bound of it) to the outline of a shape that fits the unit disc; negative inside."""
    if shape == "disc":
        return np.hypot(u, v) - 1.0
    if shape == "square":
        return _box(u, v, 2**-0.5, 2**-0.5)
    if shape == "triangle":
        return _polygon(u, v, 3)
    if shape == "star":
        return _star(u, v)
    if shape == "ring":
        return np.abs(np.hypot(u, v) - 0.78) - 0.22
    if shape == "cross":
        return np.minimum(_box(u, v, 0.95, 0.31), _box(u, v, 0.31, 0.95))
    if shape == "hexagon":
        return _polygon(u, v, 6)
    if shape == "heart":
        return _heart(u, v)
    raise ValueError(f"shape {shape!r} is not one of {', '.join(SHAPES)}")


@cache
def unit_area(shape: str) -> float:
    """Area of the shape at radius 1, by counting on a fine grid: lets sizes be asked for as areas."""
    steps = (np.arange(400) + 0.5) / 200 - 1.0
    u, v = np.meshgrid(steps, steps)
    return float(np.count_nonzero(distance(shape, u, v) < 0)) / 200**2


def window(cx: float, cy: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the picture within `reach` pixels of a centre."""
    top, left = max(0, int(cy - reach)), max(0, int(cx - reach))
    return slice(top, min(SIDE, int(cy + reach) + 2)), slice(left, min(SIDE, int(cx + reach) + 2))


def outline(shape: str, cx: float, cy: float, radius: float, turn: float, where: tuple[slice, slice]) -> Floats:
    """Signed distance in pixels to a placed, turned shape, for the pixels of `where`."""
    x, y = (_COLS[where] - cx) / radius, (_ROWS[where] - cy) / radius
    c, s = np.cos(turn), np.sin(turn)
    return distance(shape, c * x + s * y, c * y - s * x) * radius


def value_noise(dice: Dice, cells: int) -> Floats:
    """Smooth noise in [0, 1]: a random grid of `cells` x `cells`, smoothly interpolated. Shape (SIDE, SIDE)."""
    grid = dice.array(cells + 1, cells + 1)
    at = (np.arange(SIDE) + 0.5) / SIDE * cells
    low = at.astype(np.int64)
    mix = at - low
    mix = mix * mix * (3 - 2 * mix)
    rows = grid[low] * (1 - mix)[:, None] + grid[low + 1] * mix[:, None]
    return rows[:, low] * (1 - mix) + rows[:, low + 1] * mix


def paint_colour(hue: float, saturation: float, value: float) -> Floats:
    """RGB in [0, 1], shape (3,)."""
    return np.array(colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value))


def _pattern(dice: Dice, name: str) -> Floats:
    """Blend factor in [0, 1] between the two tones of a background. Shape (SIDE, SIDE)."""
    turn, period = dice.uniform(0, 2 * np.pi), dice.uniform(9, 22)
    along: Floats = _COLS * np.cos(turn) + _ROWS * np.sin(turn)
    across: Floats = _ROWS * np.cos(turn) - _COLS * np.sin(turn)
    if name == "plain":
        return 0.5 + along / (3 * SIDE)
    if name == "cloudy":
        return 0.6 * value_noise(dice, 4) + 0.4 * value_noise(dice, 11)
    waves: Floats = np.sin(2 * np.pi * along / period)
    if name == "striped":
        return np.clip(0.5 + 2.5 * waves, 0, 1)
    if name == "wavy":
        wave: Floats = np.sin(2 * np.pi * (along + 5 * np.sin(2 * np.pi * across / (2.3 * period))) / period)
        return 0.5 + 0.5 * wave
    crossed: Floats = np.sin(2 * np.pi * across / period)
    if name == "checkered":
        return np.clip(0.5 + 4 * waves * crossed, 0, 1)
    if name == "dotted":
        return np.clip(4 * (waves + crossed - 1.0), 0, 1)
    raise ValueError(f"pattern {name!r} is not one of {', '.join(PATTERNS)}")


def background(dice: Dice, pattern: str) -> Floats:
    """A two-tone textured ground without any saturated surface. Shape (SIDE, SIDE, 3), values in [0, 1]."""
    hue, value = dice.uniform(0, 360), dice.uniform(0.35, 0.8)
    first = paint_colour(hue, dice.uniform(0.0, 0.3), value)
    contrast = dice.uniform(0.08, 0.25) * (1 if value < 0.55 else -1)
    second = paint_colour(hue + dice.uniform(-60, 60), dice.uniform(0.0, 0.3), value + contrast)
    blend = _pattern(dice, pattern)[..., None]
    grain = (value_noise(dice, 28) - 0.5) * dice.uniform(0.03, 0.16)
    return first * (1 - blend) + second * blend + grain[..., None]


def scatter_specks(dice: Dice, image: Floats) -> None:
    """Coloured crumbs, too small to be objects: a patch cannot be told from its mean colour alone. In place."""
    for _ in range(6 + dice.below(14)):
        cx, cy, radius = dice.uniform(0, SIDE), dice.uniform(0, SIDE), dice.uniform(0.7, 2.0)
        where = window(cx, cy, radius + 1)
        cover = np.clip(0.5 - outline("disc", cx, cy, radius, 0.0, where), 0, 1)[..., None]
        paint = paint_colour(dice.uniform(0, 360), dice.uniform(0.2, 0.8), dice.uniform(0.3, 0.9))
        image[where] = image[where] * (1 - cover) + paint * cover


def expose(dice: Dice, image: Floats, light: float) -> NDArray[np.uint8]:
    """Shade the scene from the direction `light`, blur a little, add sensor noise, round. uint8 (SIDE, SIDE, 3)."""
    centre = SIDE / 2
    across = ((_COLS - centre) * np.cos(light) + (_ROWS - centre) * np.sin(light)) / centre
    vignette = ((_COLS - centre) ** 2 + (_ROWS - centre) ** 2) / (2 * centre**2)
    shade = dice.uniform(0.9, 1.08) + dice.uniform(0.0, 0.22) * across - dice.uniform(0.0, 0.25) * vignette
    image = image * shade[..., None]
    soft = dice.uniform(0.0, 0.25)  # weight of each neighbour in a three-tap blur: optics that are not perfect
    for _ in range(2):
        padded = np.concatenate([image[:1], image, image[-1:]])
        image = (1 - 2 * soft) * image + soft * (padded[:-2] + padded[2:])
        image = image.transpose(1, 0, 2)
    grey, tint = dice.uniform(0.01, 0.04), dice.uniform(0.005, 0.025)
    image = image + grey * dice.bell(SIDE, SIDE, 1) + tint * dice.bell(SIDE, SIDE, 3)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
