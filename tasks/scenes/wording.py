"""Reference captions of a scene: several wordings of the same facts, about the main object and its neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tasks.scenes.drawing import SIDE

_NUMBERS = {3: "three", 4: "four", 5: "five", 6: "six"}
_LARGE = 1000  # visible pixels: more is called large, less than a third of it small
_OPPOSITE = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}


class Describable(Protocol):
    @property
    def shape(self) -> str: ...
    @property
    def colour(self) -> str: ...
    @property
    def cx(self) -> float: ...
    @property
    def cy(self) -> float: ...
    @property
    def visible_area(self) -> int: ...
    @property
    def is_main(self) -> bool: ...


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _sized(thing: Describable) -> str:
    size = "large" if thing.visible_area >= _LARGE else "small" if thing.visible_area < _LARGE / 3 else "medium"
    return f"{size} {thing.colour} {thing.shape}"


def _relation(first: Describable, second: Describable) -> str:
    """Where `first` is, seen from `second`: along the axis on which their centres are further apart."""
    dx, dy = first.cx - second.cx, first.cy - second.cy
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _region(thing: Describable) -> str:
    vertical = "upper" if thing.cy < SIDE / 3 else "lower" if thing.cy > 2 * SIDE / 3 else ""
    horizontal = "left" if thing.cx < SIDE / 3 else "right" if thing.cx > 2 * SIDE / 3 else ""
    if not vertical and not horizontal:
        return "in the middle"
    return f"in the {vertical or 'middle'} {horizontal}".strip() if horizontal else f"in the {vertical} part"


def describe(objects: Sequence[Describable], pattern: str) -> tuple[str, ...]:
    """Five captions of the main object, its most visible neighbour, the count of objects and the ground."""
    main = next(thing for thing in objects if thing.is_main)
    other = max((thing for thing in objects if not thing.is_main), key=lambda thing: thing.visible_area)
    relation = _relation(main, other)
    name, neighbour = f"{main.colour} {main.shape}", f"{other.colour} {other.shape}"
    count = _NUMBERS[len(objects)]
    return (
        f"{_article(_sized(main))} {relation} {_article(_sized(other))}",
        f"{_article(name)} is {relation} {_article(neighbour)} on a {pattern} background",
        f"there is {_article(_sized(main))} {_region(main)} with {_article(neighbour)} {_OPPOSITE[relation]} it",
        f"{count} objects on a {pattern} background and the largest is {_article(name)}",
        f"{_article(neighbour)} {_OPPOSITE[relation]} a larger {name}",
    )
