"""Masks side by side: image, truth, the unreduced model's prediction, a method's, and what it made of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colours = NDArray[np.uint8]  # (..., 3)
IGNORED = 255
DROPPED = np.array([128, 128, 128], np.uint8)
BORDER = np.array([255, 255, 255], np.uint8)
OPACITY = 0.65  # of a mask over its image
PANEL = 1.9  # inches
TITLES = ("image", "truth", "unreduced", "prediction", "tokens")
MOST_NAMES = 24  # classes that a key can hold


@dataclass(frozen=True)
class MaskRow:
    """One sample under one method. Pictures (H, W, 3) uint8, masks (H, W) of class indices, IGNORED where unlabelled.

    sample, method: their names. notes: below prediction and unreduced prediction, such as the image's own mIoU.
    tokens: (H, W, 3) uint8 picture of the token groups; None where the tokens were given back after every block.
    """

    sample: str
    method: str
    image: np.ndarray
    truth: np.ndarray
    unreduced: np.ndarray
    prediction: np.ndarray
    tokens: np.ndarray | None
    notes: tuple[str, str]


def mean_colours(image: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The colour (h, w, 3) uint8 of every patch of an image (H, W, 3) uint8, from the group (h, w) that it is in.

    Every group has the mean colour of its pixels; -1, patches that were dropped without an owner, is grey. H and W are
    multiples of h and w.
    """
    rows, columns = image.shape[0] // groups.shape[0], image.shape[1] // groups.shape[1]
    _, number = np.unique(groups, return_inverse=True)
    number = number.reshape(groups.shape)
    pixels = number.repeat(rows, 0).repeat(columns, 1)
    count = np.bincount(pixels.ravel())
    means = np.stack([np.bincount(pixels.ravel(), image[..., channel].ravel()) / count for channel in range(3)], axis=1)
    colours = np.rint(means).astype(np.uint8)[number]
    colours[groups < 0] = DROPPED
    return colours


def draw_groups(image: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """`mean_colours` as a picture (H, W, 3) uint8, with a white border where a group meets another."""
    rows, columns = image.shape[0] // groups.shape[0], image.shape[1] // groups.shape[1]
    pixels = groups.repeat(rows, 0).repeat(columns, 1)
    picture = mean_colours(image, groups).repeat(rows, 0).repeat(columns, 1)
    picture[:, 1:][pixels[:, 1:] != pixels[:, :-1]] = BORDER
    picture[1:][pixels[1:] != pixels[:-1]] = BORDER
    return picture


def write_masks(
    rows: Sequence[MaskRow], class_names: Sequence[str], palette: Sequence[Sequence[int]], file: Path
) -> None:
    """Write the rows as one picture; its kind is that of the file's ending: .png, .svg or .pdf."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    classes = {int(c) for row in rows for mask in (row.truth, row.unreduced, row.prediction) for c in np.unique(mask)}
    seen = sorted(classes - {IGNORED})
    shown = by_area(rows, seen)[:MOST_NAMES]
    key = 0.2 * -(-len(shown) // 6) + 0.3
    height = sum(PANEL * row.image.shape[0] / row.image.shape[1] + 0.1 for row in rows) + 0.25
    figure = Figure(figsize=(PANEL * len(TITLES), height + key), layout="constrained", dpi=160)
    axes = figure.subplots(len(rows), len(TITLES), squeeze=False)
    for place, (row, line) in enumerate(zip(rows, axes, strict=True)):
        masks = [blend(row.image, mask, palette) for mask in (row.truth, row.unreduced, row.prediction)]
        notes = (row.sample, "", row.notes[0], f"{row.method}, {row.notes[1]}", row.method)
        for title, note, axis, picture in zip(TITLES, notes, line, (row.image, *masks, row.tokens), strict=True):
            panel(axis, picture, title if place == 0 else "", note)
    colours = [Patch(facecolor=unit_colour(palette[c]), edgecolor="#555555", linewidth=0.4) for c in shown]
    names = [str(class_names[c]) for c in shown]
    more = len(seen) - len(shown)
    heading = f"the {len(shown)} largest of {len(seen)} classes" if more else None
    figure.legend(
        colours,
        names,
        loc="outside lower center",
        ncols=6,
        fontsize=6.5,
        frameon=False,
        title=heading,
        title_fontsize=6.5,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Software": None} if file.suffix == ".png" else None)


def panel(axis: Axes, picture: np.ndarray | None, title: str, note: str) -> None:
    """One picture with its title above, in the first row, and a note below."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_linewidth(0.4)
    if picture is None:
        axis.text(
            0.5, 0.5, "given back\nafter every block", ha="center", va="center", fontsize=7, transform=axis.transAxes
        )
        axis.set_box_aspect(1)
    else:
        axis.imshow(picture, interpolation="nearest")
    axis.set_title(title, fontsize=8)
    axis.set_xlabel(note, fontsize=6.5, parse_math=False)


def unit_colour(colour: Sequence[int] | Colours) -> tuple[float, float, float]:
    """0..255 as 0..1."""
    red, green, blue = (float(part) / 255 for part in colour)
    return red, green, blue


def by_area(rows: Sequence[MaskRow], classes: Sequence[int]) -> list[int]:
    """Classes, the one with most pixels in all masks first."""
    areas = dict.fromkeys(classes, 0)
    for row in rows:
        for mask in (row.truth, row.unreduced, row.prediction):
            for c, count in zip(*np.unique(mask, return_counts=True), strict=True):
                if int(c) in areas:
                    areas[int(c)] += int(count)
    return sorted(areas, key=lambda c: -areas[c])


def blend(image: Colours, mask: np.ndarray, palette: Sequence[Sequence[int]]) -> Colours:
    """A mask's colours over its image, (H, W, 3) uint8; pixels that are not labelled show the image, darkened."""
    colours = np.zeros((256, 3))
    colours[: len(palette)] = palette
    blended: Colours = np.rint((1 - OPACITY) * image + OPACITY * colours[mask]).astype(np.uint8)
    return blended
