"""How reducers look in plots: told apart in colour, by colour-blind readers, and in a grey print."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

# Okabe and Ito, "Color Universal Design", 2008, without its yellow (unreadable as a thin line on white) and black
# (kept for the unreduced model). Ordered so that neighbours differ in lightness, too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#6A3D9A")
# (marker, relative size): the sizes make their areas look alike
MARKERS = (
    ("o", 1.0), ("s", 0.9), ("^", 1.1), ("D", 0.8), ("v", 1.1), ("P", 1.1), ("X", 1.1), ("<", 1.1), ("p", 1.15),
    (">", 1.1), ("h", 1.15),
)  # fmt: skip
LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
BASELINE_COLOUR = "#000000"
FRONTIER_COLOUR = "#B8B8B8"


@dataclass(frozen=True)
class Style:
    """Colour, marker (with its relative size and whether it is filled) and line pattern of one reducer."""

    colour: str
    marker: str
    size: float
    filled: bool
    line: str | tuple


def styles_for(names: list[Hashable]) -> dict[Hashable, Style]:
    """One style per name, by its place in the list: no two alike for 77 names, and the first 11 markers differ."""
    return {name: _style(i) for i, name in enumerate(names)}


def _style(i: int) -> Style:
    marker, size = MARKERS[i % len(MARKERS)]
    filled = (i // len(MARKERS)) % 2 == 0
    return Style(COLOURS[i % len(COLOURS)], marker, size, filled, LINES[i % len(LINES)])
