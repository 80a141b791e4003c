"""How reducers look in plots: one hue a family, one shade and marker a member, the same in every plot.

A look depends on the reducer's name alone and on nothing else in the run; only reducers that no family lists, as users
write them, share what is left in the order of their names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from reports.text.wording import is_untrained

Line = Literal["-"] | tuple[float, tuple[float, ...]]  # solid, or (offset, lengths of dashes and gaps), in line widths

# (marker, relative size): the sizes make their areas look alike
MARKERS = (
    ("o", 1.0), ("s", 0.9), ("^", 1.1), ("D", 0.8), ("v", 1.1), ("P", 1.1), ("X", 1.1), ("<", 1.1), ("p", 1.15),
    (">", 1.1), ("h", 1.15),
)  # fmt: skip
LINES: tuple[Line, ...] = ("-", (0, (6, 1.2, 1.5, 1.2)), (0, (1.2, 1.2)), (0, (8, 2)))
UNTRAINED_LINE: Line = (0, (2.5, 1.8))
# of models among several, one each
PATTERNS: tuple[Line, ...] = ("-", (0, (5, 1.4)), (0, (1.2, 1.1)), (0, (6, 1.2, 1.2, 1.2)), (0, (3, 1, 1, 1, 1, 1)))
BASELINE_COLOUR = "#000000"
BASELINE_LINE: Line = (0, (4, 3))
FRONTIER_COLOUR = "#B8B8B8"


@dataclass(frozen=True)
class Family:
    """Reducers that treat tokens alike, the shades of their common hue, and where in MARKERS their markers begin."""

    name: str
    shades: tuple[str, ...]
    members: tuple[str, ...] = ()
    first: int = 0


FLOORS = ("random", "uniform", "heuristic", "resize")
"""Reducers that look at no token's worth: what every method has to beat."""
UNREDUCED = " unreduced"
"""What the name of a model ends in that stands among reducers as a floor."""

# Hues near those of Okabe and Ito, "Color Universal Design", 2008, which colour-blind readers can tell apart; the
# shades of one hue differ in lightness, so they survive a grey print. So do markers: those of different families begin
# at different places, so that the methods that are most often compared have ten different ones. Within a family, new
# members go last.
FAMILIES = (
    Family(
        "merge", ("#0072B2", "#45A5DC", "#00436B"), ("tome", "dtem", "mctf", "pitome", "tome_kth", "tome_random", "mat")
    ),
    Family("cluster", ("#6A3D9A", "#A17BC9"), ("dpcknn", "kmedoids", "atc"), 7),
    Family(
        "prune and fuse",
        ("#00805F", "#3FB58F", "#00503B"),
        ("evit", "tofu", "diffrate", "dtps", "etps", "nap", "pomt", "hynap", "ppt", "gtp"),
        6,
    ),
    Family(
        "prune",
        ("#D55E00", "#F0914A", "#953F00"),
        ("topk", "ats", "dynamicvit", "representation_shift", "saint", "zero_tprune"),
        3,
    ),
    Family("mix softly", ("#B8467F", "#DE8DB6", "#85295A"), ("patchmerger", "sinkhorn", "sit", "dct"), 8),
    Family("floor", ("#6B6B6B", "#9A9A9A", "#454545"), FLOORS, 4),
)
OTHERS = Family("other", ("#9A7500", "#C9A227", "#6B5200"), first=1)


@dataclass(frozen=True)
class Style:
    """One curve's colour, that of its name, marker (with relative size; filled or hollow) and line pattern."""

    family: str
    colour: str
    ink: str
    marker: str
    size: float
    filled: bool
    line: Line


def styles_for(series: list[tuple[str, str, str]]) -> dict[tuple[str, str, str], Style]:
    """One style per (reducer, options, training).

    A reducer's further curves (other options, other weights) keep its colour and differ in marker and line; those
    without the trained weights that they need are dashed with hollow markers.
    """
    strangers = sorted({reducer for reducer, *_ in series} - {name for family in FAMILIES for name in family.members})
    models = tuple(name for name in strangers if name.endswith(UNREDUCED))
    *families, floor = FAMILIES
    others = tuple(name for name in strangers if name not in models)
    families += [replace(floor, members=floor.members + models), replace(OTHERS, members=others)]
    home = {name: (family, place) for family in families for place, name in enumerate(family.members)}
    curves: dict[str, list[tuple[str, str, str]]] = {}
    for key in sorted(series):
        curves.setdefault(key[0], []).append(key)
    return {key: _style(*home[name], i, key[2]) for name, keys in curves.items() for i, key in enumerate(keys)}


def _style(family: Family, place: int, curve: int, training: str) -> Style:
    marker, size = MARKERS[(family.first + place + 5 * curve) % len(MARKERS)]
    untrained = is_untrained(training)
    line = UNTRAINED_LINE if untrained else LINES[curve % len(LINES)]
    colour = family.shades[place % len(family.shades)]
    return Style(family.name, colour, family.shades[0], marker, size, not untrained, line)
