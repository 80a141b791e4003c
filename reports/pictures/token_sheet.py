"""Token groups side by side: an image, and what became of its tokens under every method, or at every step, in chosen
blocks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.pictures.mask_sheet import BORDER, DROPPED, mean_colours, unit_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL, GAP, MARGIN = 1.1, 0.07, 0.1  # inches: width of a panel, between panels, around all
TITLE, LABEL, LINE = 0.15, 0.22, 0.115  # inches: above a panel, a row's rotated label, a line of text
KEY = 0.1  # inches below all, for what the colours mean
LARGE = 1.6  # width of the image, in panels, where there are several rows
WRAP = 20  # characters of a line as wide as a panel
SIZE = 6.5  # points
CASING = "#202020"


@dataclass(frozen=True)
class TokenPanel:
    """What one method made of one image in one place, such as after a block: the group (h, w) of each patch, -1:
    dropped; tokens, prefix included, that were left."""

    groups: np.ndarray
    tokens: int


@dataclass(frozen=True)
class TokenImage:
    """An image (H, W, 3) uint8, as the model saw or drew it, and a panel for every column (outer) and row (inner)."""

    name: str
    image: np.ndarray
    panels: Sequence[Sequence[TokenPanel]]


def write_tokens(
    images: Sequence[TokenImage], columns: Sequence[Sequence[str]], rows: Sequence[str], heading: str, file: Path
) -> None:
    """Write `token_figure` to a file; its ending says of which kind, .png, .svg or .pdf."""
    figure = token_figure(images, columns, rows, heading)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Software": None} if file.suffix == ".png" else None)


def token_figure(
    images: Sequence[TokenImage], columns: Sequence[Sequence[str]], rows: Sequence[str], heading: str
) -> Figure:
    """All images, one below the other, each with its panels beside it.

    columns: the lines of each one's title, such as a method's; those that are longer than a panel is wide are broken.
    rows: what each is called, such as 'after block 3'. Borders of groups are lines, not pixels, so that they stay sharp
    at any size.
    """
    from matplotlib.figure import Figure

    names = [[part for line in column for part in textwrap.wrap(line, WRAP)] for column in columns]
    top = TITLE + LINE * max(map(len, names))
    wide = PANEL * (LARGE if len(rows) > 1 else 1)
    heights = [section_height(shown, len(rows), wide) for shown in images]
    width = 2 * MARGIN + wide + LABEL + len(columns) * (PANEL + GAP)
    heading_lines = textwrap.wrap(heading, int(width / PANEL * WRAP))
    height = 2 * MARGIN + LINE * len(heading_lines) + top + sum(heights) + KEY
    figure = Figure(figsize=(width, height), dpi=200)
    write = Writer(figure, width, height)
    y = MARGIN + LINE * len(heading_lines)
    write.text(MARGIN, y, "\n".join(heading_lines), va="bottom")
    y += top
    left = MARGIN + wide + LABEL
    for column, lines in enumerate(names):
        middle = left + column * (PANEL + GAP) + PANEL / 2
        write.text(middle, y - TITLE, "\n".join(lines), ha="center", va="bottom")
    for shown, tall in zip(images, heights, strict=True):
        draw_section(write, shown, rows, y, wide)
        y += tall
    draw_key(figure, dropped=any((p.groups < 0).any() for shown in images for line in shown.panels for p in line))
    return figure


@dataclass(frozen=True)
class Writer:
    """A figure measured in inches from its upper left corner, so that nothing meets by accident."""

    figure: Figure
    width: float
    height: float

    def text(self, x: float, y: float, text: str, **how: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=SIZE, parse_math=False, **how)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """An empty frame with its upper left corner at (x, y)."""
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box, xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_linewidth(0.4)
        return axes


def section_height(shown: TokenImage, rows: int, wide: float) -> float:
    """Inches that an image takes with its panels; its name below it is counted."""
    ratio: float = shown.image.shape[0] / shown.image.shape[1]
    return max(rows * (PANEL * ratio + TITLE), wide * ratio + 3 * LINE) + GAP


def draw_section(write: Writer, shown: TokenImage, rows: Sequence[str], top: float, wide: float) -> None:
    """One image, its name below it, and its panels, each with the number of tokens above it."""
    ratio = shown.image.shape[0] / shown.image.shape[1]
    write.axes(MARGIN, top, wide, wide * ratio).imshow(shown.image, interpolation="nearest")
    name = textwrap.shorten(shown.name, 2 * int(WRAP * wide / PANEL), placeholder=" …")
    lines = textwrap.wrap(name, int(WRAP * wide / PANEL))
    write.text(MARGIN, top + wide * ratio + 0.04, "\n".join(lines), va="top")
    left, tall = MARGIN + wide + LABEL, PANEL * ratio
    for row, label in enumerate(rows):
        y = top + row * (tall + TITLE)
        write.text(left - 0.05, y + tall / 2, label, rotation=90, ha="right", va="center")
        for column, panels in enumerate(shown.panels):
            panel, x = panels[row], left + column * (PANEL + GAP)
            draw_panel(write.axes(x, y, PANEL, tall), shown.image, panel.groups)
            write.text(x + PANEL / 2, y - 0.025, f"{panel.tokens} tokens", ha="center", va="bottom")


def draw_panel(axes: Axes, image: np.ndarray, groups: np.ndarray) -> None:
    """Patches in the mean colour of their groups, lines between groups, and strokes through what was dropped."""
    rows, columns = groups.shape
    axes.imshow(mean_colours(image, groups), interpolation="nearest", extent=(0, columns, rows, 0), aspect="auto")
    strokes = [((x, x + 1), (y + 1, y)) for y, x in np.argwhere(groups < 0)]
    for lines, colour, width in (
        (strokes, "#FFFFFF", 0.5),
        (edges(groups), CASING, 1.0),  # dark below white: seen on light groups and on dark ones
        (edges(groups), BORDER / 255, 0.45),
    ):
        # one path for all of them, interrupted by NaN: a vector picture stays small
        xs, ys = ([v for line in lines for v in (*line[axis], np.nan)] for axis in (0, 1))
        axes.plot(xs, ys, color=colour, linewidth=width, solid_capstyle="projecting")
    axes.set(xlim=(0, columns), ylim=(rows, 0))


def edges(groups: np.ndarray) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Sides of patches (h, w) at which a group meets another: ((x, x), (y, y)), in patches."""
    upright = [((x + 1, x + 1), (y, y + 1)) for y, x in np.argwhere(groups[:, 1:] != groups[:, :-1])]
    level = [((x, x + 1), (y + 1, y + 1)) for y, x in np.argwhere(groups[1:] != groups[:-1])]
    return upright + level


def draw_key(figure: Figure, dropped: bool) -> None:
    from matplotlib.patches import Patch

    key = [Patch(facecolor="#D9A15B", edgecolor=CASING, label="a group, in its mean colour")]
    if dropped:
        grey = Patch(facecolor=unit_colour(DROPPED), edgecolor="white", hatch="//////", linewidth=0, label="dropped")
        key.append(grey)
    figure.legend(
        handles=key, loc="lower center", ncols=2, fontsize=SIZE, frameon=False, borderaxespad=0.3, columnspacing=1.2
    )
