"""Which class a label of a mask is, decided by the labels that occur.

ADE20K counts its classes from 1, and 0 is a pixel without one. What detectron2 and MaskFormer prepare of it counts from
0, and 255 is none: `reduce_zero_label` of mmsegmentation, applied already. Nearly all labels occur in both, and one
read as the other is scored one class too low without a word. So it is decided by what occurs in one of them alone, and
where nothing does, it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from suite.contract.task import ReadError
from suite.errors import RequestError
from tasks.ade20k.classes import NUM_CLASSES, ade_palette
from tasks.reading.images import UnreadableImage
from tasks.reading.masks import IGNORED, UNLABELLED_16, labels_in, read_mask, read_palette

LOOKED = 256  # masks that are enough where 0 and 255 occur: one with label 150 beyond them is refused when it is read
GIVEN_UP = 16  # masks of which none can be read
NONE = frozenset({IGNORED, UNLABELLED_16})
# The largest classes of sets that come in the same form; their labels would pass for ADE20K's.
OTHERS = {
    18: "Cityscapes' trainIds",
    20: "Pascal VOC's",
    33: "Cityscapes' labelIds",
    59: "Pascal Context's",
    181: "COCO-Stuff's",
}


@dataclass(frozen=True)
class Look:
    """What masks hold. labels: of those with labels up to 150 and those of `NONE`; beyond: of those with others, too.

    ahead: see `palette_ahead`. masks: how many there are.
    """

    labels: frozenset[int] = frozenset()
    beyond: frozenset[int] = frozenset()
    ahead: frozenset[int] = frozenset()
    masks: int = 0

    @property
    def count_from_1(self) -> bool:
        return NUM_CLASSES in self.labels or self.ahead == {1}

    @property
    def count_from_0(self) -> bool:
        """0 beside 255, and other labels: 0 and 255 alone are a foreground as often."""
        told = 0 in self.labels and bool(NONE & self.labels) and len(self.labels - NONE) > 1
        return not self.count_from_1 and (self.ahead == {0} or told)

    @property
    def decided(self) -> bool:
        """Whether more masks would change nothing."""
        return self.count_from_1 or (self.count_from_0 and self.masks >= LOOKED)

    @property
    def other(self) -> str:
        """Another set, whose classes these are as far as one can see; "" if none."""
        return "" if self.ahead else OTHERS.get(max((self.labels | self.beyond) - NONE, default=0), "")

    def __add__(self, one: Look) -> Look:
        ahead = self.ahead | one.ahead
        return Look(self.labels | one.labels, self.beyond | one.beyond, ahead, self.masks + one.masks)

    def __str__(self) -> str:
        classes = sorted((self.labels | self.beyond) - NONE) or [0]
        none = " and 255" if NONE & (self.labels | self.beyond) else ""
        return f"{classes[0]}..{classes[-1]}{none} in {self.masks} mask{'s' if self.masks > 1 else ''}"


def look_into(data: bytes) -> Look:
    """What the mask in these bytes holds. UnreadableImage where it is none."""
    mask = read_mask(data)
    labels = labels_in(mask)
    if max(labels - NONE, default=0) > NUM_CLASSES:
        return Look(beyond=labels, masks=1)
    return Look(labels, ahead=palette_ahead(data, labels), masks=1)


def palette_ahead(data: bytes, labels: frozenset[int]) -> frozenset[int]:
    """By how much the labels of a PNG with a palette are greater than the classes that have their colours: {0} or {1},
    or nothing where the colours are not ADE20K's, or the PNG has none.

    UnreadableImage for these colours at other places, as of a picture of a mask that was given a palette.
    """
    palette = read_palette(data)
    if palette is None:
        return frozenset()
    classes = {colour: number for number, colour in enumerate(ade_palette()) if len(set(colour)) > 1}  # no grey
    colours = {label: tuple(palette[label].tolist()) for label in labels - NONE if label < len(palette)}
    ahead = {label - classes[colour] for label, colour in colours.items() if colour in classes}
    if 2 * sum(colour in classes for colour in colours.values()) <= len(colours):
        return frozenset()
    if len(ahead) > 1 or not ahead <= {0, 1}:
        raise UnreadableImage(
            "its palette has ADE20K's colours, and not at the indices of their classes; save the indices themselves"
        )
    return frozenset(ahead)


def find_numbering(masks: Iterable[Callable[[], Look]], asked: bool | None, where: str) -> tuple[bool, str]:
    """Whether labels count classes from 1, as `asked` or else as the masks say, and a line that says so.

    where: the data, for people. RequestError where the masks do not decide it, or none can be read.
    """
    if asked is not None and not isinstance(asked, bool):
        raise RequestError(f"reduce_zero_label {asked!r} is neither true nor false; write one of them, or none")
    found = _look_at(masks, enough=1 if asked is not None else None)
    if asked is None:
        _check_decided(found, where)
    from_1, how = (asked, "as was asked") if asked is not None else (found.count_from_1, f"there are {found}")
    read = "1..150 are the classes, 0 and 255 are none" if from_1 else "0..149 are the classes, 255 is none"
    return from_1, f"labels of masks: {read} (reduce_zero_label={str(from_1).lower()}, {how})"


def _look_at(masks: Iterable[Callable[[], Look]], enough: int | None) -> Look:
    """What `enough` of the masks hold, or as many as decide it. RequestError if none of the first ones can be read."""
    found, faults = Look(), []
    for look in masks:
        try:
            found += look()
        except ReadError as error:  # of single ones, evaluation says it
            faults.append(error)
        if found.decided or found.masks == enough or (len(faults) == GIVEN_UP and not found.masks):
            break
    if not found.masks:
        raise RequestError(f"none of the first {len(faults)} masks can be used: {faults[0]}")
    return found


def _check_decided(found: Look, where: str) -> None:
    if not found.other and (found.count_from_1 or found.count_from_0):
        return
    doubt = "which may count classes from 1 or from 0"
    if found.other:
        doubt = f"as {found.other} are, whose classes are not ADE20K's"
    elif found.beyond and not found.labels:
        doubt = "and ADE20K has 150 classes"
    raise RequestError(
        f"masks of '{where}' have labels {found}, {doubt}; say which with --task-option reduce_zero_label=true (1..150 "
        "are ADE20K's classes, 0 is none) or reduce_zero_label=false (0..149 are, 255 is none)"
    )
