"""The embedded data: small synthetic pictures with a class, captions and a mask, drawn by a seeded generator.

A scene is 112 x 112 pixels (patch 8 gives the 14 x 14 grid of DeiT) with three to six overlapping, tilted objects on a
textured ground. **The main object is the one with the largest visible area**: any other object shows at most `MARGIN`
of its visible pixels, and at least `MAIN_SHOWN` of it can be seen, so the class (shape x colour of the main object) can
always be decided from the picture. Other objects share its shape or its colour, never both, and none is in a fixed
place: a model has to find, outline and compare objects.

Scene `i` of split `S` depends on (`VERSION`, `S`, `i`) alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from tasks.scenes.drawing import (
    COLOURS,
    PATTERNS,
    SHAPES,
    SIDE,
    Dice,
    background,
    expose,
    outline,
    paint_colour,
    scatter_specks,
    unit_area,
    window,
)
from tasks.scenes.wording import describe

VERSION = 1
SPLITS = ("train", "val", "test")
CLASS_NAMES: tuple[str, ...] = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
NUM_CLASSES = len(CLASS_NAMES)

MARGIN = 0.75  # the second-largest visible area is at most this fraction of the main object's
MAIN_SHOWN = 0.75  # visible fraction of the main object
OTHERS_SHOWN = 0.4  # visible fraction of every other object: what a caption or a mask names can be seen
MAIN_AREA = (600.0, 2000.0)  # pixels: about 3 to 5.6 patches across
TILT = np.pi / 6  # most that an object is turned from upright, either way
OTHERS_AREA = (0.25, 0.72)  # of the main object's


@dataclass(frozen=True)
class SceneObject:
    """One placed object. Lengths in pixels, turn in radians, areas in pixels."""

    shape: str
    colour: str
    cx: float
    cy: float
    radius: float
    turn: float
    visible_area: int
    is_main: bool

    @property
    def class_id(self) -> int:
        return SHAPES.index(self.shape) * len(COLOURS) + tuple(COLOURS).index(self.colour)


@dataclass(frozen=True)
class Scene:
    """One picture and what is true of it.

    image: uint8 (112, 112, 3) RGB. label: class of the main object, 0 <= label < NUM_CLASSES. captions: reference
    wordings. mask: uint8 (112, 112), 0 = background, 1 + class id of the object seen at that pixel. objects: from
    the back to the front. pattern: the background's texture.
    """

    image: np.ndarray
    label: int
    captions: tuple[str, ...]
    mask: np.ndarray
    objects: tuple[SceneObject, ...]
    pattern: str


@dataclass(frozen=True)
class _Placed:
    shape: str
    colour: str
    cx: float
    cy: float
    radius: float
    turn: float
    is_main: bool

    @property
    def reach(self) -> tuple[slice, slice]:
        return window(self.cx, self.cy, self.radius + 1)

    def inside(self) -> np.ndarray:
        return outline(self.shape, self.cx, self.cy, self.radius, self.turn, self.reach) < 0


def _choose_kinds(dice: Dice, label: int) -> list[tuple[str, str]]:
    """(shape, colour) of all objects, the main one first.

    Two or three of the others complete the square {shape, rival shape} x {colour, rival colour}, so that counting
    shapes and colours says nothing about which object is the main one: only its area does.
    """
    shape, colour = SHAPES[label // len(COLOURS)], tuple(COLOURS)[label % len(COLOURS)]
    rival_shape = dice.pick([s for s in SHAPES if s != shape])
    rival_colour = dice.pick([c for c in COLOURS if c != colour])
    rivals = dice.shuffled([(shape, rival_colour), (rival_shape, colour), (rival_shape, rival_colour)])
    others = rivals[: 2 + dice.below(2)]
    for _ in range(dice.below(3)):
        kind = (dice.pick(SHAPES), dice.pick(tuple(COLOURS)))
        if kind != (shape, colour):
            others.append(kind)
    return [(shape, colour), *others]


def _place(dice: Dice, kinds: list[tuple[str, str]]) -> list[_Placed]:
    """A random arrangement, from back to front; whether it is a valid one is decided from what can be seen of it."""
    main_area = dice.uniform(*MAIN_AREA)
    placed = []
    for number, (shape, colour) in enumerate(kinds):
        area = main_area if number == 0 else main_area * dice.uniform(*OTHERS_AREA)
        radius = (area / unit_area(shape)) ** 0.5
        margin = min(radius * 0.9, SIDE / 2 - 1)
        cx, cy = dice.uniform(margin, SIDE - margin), dice.uniform(margin, SIDE - margin)
        placed.append(_Placed(shape, colour, cx, cy, radius, dice.uniform(-TILT, TILT), number == 0))
    return dice.shuffled(placed)


def _see(placed: list[_Placed]) -> tuple[np.ndarray, list[int], list[int]]:
    """Who is seen at each pixel (-1: nobody), and the visible and the full area of each object in pixels."""
    owner = np.full((SIDE, SIDE), -1, dtype=np.int64)
    full = []
    for number, thing in enumerate(placed):
        inside = thing.inside()
        owner[thing.reach][inside] = number
        full.append(int(np.count_nonzero(inside)))
    visible = np.bincount(owner.ravel() + 1, minlength=len(placed) + 1)[1:].tolist()
    return owner, visible, full


def _is_decidable(placed: list[_Placed], visible: list[int], full: list[int]) -> bool:
    main = next(i for i, thing in enumerate(placed) if thing.is_main)
    if visible[main] < MAIN_SHOWN * unit_area(placed[main].shape) * placed[main].radius ** 2:
        return False
    others = [i for i in range(len(placed)) if i != main]
    return all(OTHERS_SHOWN * full[i] <= visible[i] <= MARGIN * visible[main] for i in others)


def _arrange(dice: Dice, label: int) -> tuple[list[_Placed], np.ndarray, list[int]]:
    """Draw arrangements until one is decidable: about every other one is, so the limit is never reached."""
    for _ in range(1000):
        placed = _place(dice, _choose_kinds(dice, label))
        owner, visible, full = _see(placed)
        if _is_decidable(placed, visible, full):
            return placed, owner, visible
    raise RuntimeError(f"no decidable arrangement for class {CLASS_NAMES[label]!r}: the constants are too strict")


def _paint_object(dice: Dice, image: np.ndarray, thing: _Placed, light: float) -> None:
    """Cast shadow, then a shaded, bevelled, slightly textured surface with an anti-aliased outline. In place."""
    lean_x, lean_y = np.cos(light), np.sin(light)
    height = dice.uniform(1.0, 3.0)
    where = window(thing.cx - lean_x * height, thing.cy - lean_y * height, thing.radius + 4)
    shadow = outline(
        thing.shape, thing.cx - lean_x * height, thing.cy - lean_y * height, thing.radius, thing.turn, where
    )
    image[where] *= 1 - dice.uniform(0.2, 0.5) * np.clip(0.5 - shadow / 4, 0, 1)[..., None]

    where = thing.reach
    edge = outline(thing.shape, thing.cx, thing.cy, thing.radius, thing.turn, where)
    hue = COLOURS[thing.colour] + dice.uniform(-7, 7)
    paint = paint_colour(hue, dice.uniform(0.65, 0.95), dice.uniform(0.72, 0.98))  # darker orange would be brown
    rows = np.arange(where[0].start, where[0].stop)[:, None] + 0.5
    cols = np.arange(where[1].start, where[1].stop)[None, :] + 0.5
    lit = ((cols - thing.cx) * lean_x + (rows - thing.cy) * lean_y) / thing.radius
    shade = 1 + dice.uniform(0.05, 0.2) * lit - dice.uniform(0.0, 0.25) * np.clip(1 + edge / 2, 0, 1)
    shade += dice.uniform(0.0, 0.1) * np.sin((cols * lean_y - rows * lean_x) * dice.uniform(0.5, 1.5))
    cover = np.clip(0.5 - edge, 0, 1)[..., None]
    image[where] = image[where] * (1 - cover) + paint * shade[..., None] * cover


def _begin(split: str, index: int) -> tuple[Dice, int]:
    """The scene's random numbers and its class, which is the first thing drawn from them."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    dice = Dice(VERSION, zlib.crc32(split.encode()), index)
    return dice, dice.below(NUM_CLASSES)


def scene_label(split: str, index: int) -> int:
    """`draw_scene(split, index).label`, without drawing."""
    return _begin(split, index)[1]


def scene_captions(split: str, index: int) -> tuple[str, ...]:
    """`draw_scene(split, index).captions`, without painting."""
    dice, label = _begin(split, index)
    placed, _, visible = _arrange(dice, label)
    return describe(_objects(placed, visible), dice.pick(PATTERNS))


def scene_mask(split: str, index: int) -> np.ndarray:
    """`draw_scene(split, index).mask`, without painting."""
    placed, owner, visible = _arrange(*_begin(split, index))
    return _mask(_objects(placed, visible), owner)


def _mask(objects: tuple[SceneObject, ...], owner: np.ndarray) -> np.ndarray:
    """What is seen at each pixel, 0 or 1 + class id, from who is (-1: nobody)."""
    mask: np.ndarray = np.array([0, *(1 + thing.class_id for thing in objects)], dtype=np.uint8)[owner + 1]
    return mask


def _objects(placed: list[_Placed], visible: list[int]) -> tuple[SceneObject, ...]:
    return tuple(
        SceneObject(p.shape, p.colour, p.cx, p.cy, p.radius, p.turn, area, p.is_main)
        for p, area in zip(placed, visible, strict=True)
    )


def draw_scene(split: str, index: int) -> Scene:
    """Scene `index` of `split` ('train', 'val' or 'test'): always the same one. Raises ValueError for other splits."""
    dice, label = _begin(split, index)
    placed, owner, visible = _arrange(dice, label)
    image, pattern = _paint(dice, placed)
    objects = _objects(placed, visible)
    return Scene(image, label, describe(objects, pattern), _mask(objects, owner), objects, pattern)


def draw_main_object(split: str, index: int) -> tuple[np.ndarray, SceneObject]:
    """The main object of `draw_scene(split, index)` where it stands there, alone on its ground: picture and object."""
    dice, label = _begin(split, index)
    main = [thing for thing in _arrange(dice, label)[0] if thing.is_main]
    _, visible, _ = _see(main)
    return _paint(dice, main)[0], _objects(main, visible)[0]


def _paint(dice: Dice, placed: list[_Placed]) -> tuple[np.ndarray, str]:
    """uint8 (112, 112, 3) of a ground and what stands on it, and the ground's pattern."""
    pattern, light = dice.pick(PATTERNS), dice.uniform(0, 2 * np.pi)
    image = background(dice, pattern)
    scatter_specks(dice, image)
    for thing in placed:
        _paint_object(dice, image, thing, light)
    return expose(dice, image, light), pattern
