"""The strokes of a Pareto plot: curves with their intervals, the unreduced model, the frontier, and the key below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.groups import Group
from reports.marks.oracle import ORACLE
from reports.pareto.labels import marker_of
from reports.pareto.points import FLOPS, Plot, along, bounds, frontier
from reports.pareto.style import (
    BASELINE_COLOUR,
    BASELINE_LINE,
    FAMILIES,
    FRONTIER_COLOUR,
    OTHERS,
    UNTRAINED_LINE,
    Line,
    Style,
)
from reports.text.wording import is_untrained, reducer_label, shorten, training_mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

UNREDUCED, FRONTIER, UNTRAINED_SIGN = "unreduced", "frontier", "*"
DOMINATED = "dominated by a floor"
BEST_BY_IMAGE = "oracle: its best rate for every image"


@dataclass(frozen=True)
class Placed:
    """Rows along their curve, scores as people read them; the intervals of x end where the figure does."""

    x: pd.Series
    y: pd.Series
    x_ends: tuple[pd.Series, pd.Series]
    y_ends: tuple[pd.Series, pd.Series]

    @property
    def points(self) -> list[tuple[float, float]]:
        return list(zip(self.x, self.y, strict=True))


def coordinates(rows: pd.DataFrame, group: Group, plot: Plot, reach: tuple[float, float]) -> Placed:
    """reach: how far intervals of x are drawn, see `reach_of`."""
    rows, score, scale = along(rows, plot), group.headline.name, group.headline.scale
    y, low, high = (rows[name] for name in (score, f"{score}_low", f"{score}_high"))
    low, high = low.fillna(y).clip(upper=y), high.fillna(y).clip(lower=y)  # rounding must not turn a bar over
    ends = tuple(end.clip(*reach) for end in bounds(rows, plot))
    return Placed(rows[plot.x], scale * y, ends, (scale * low, scale * high))


def reach_of(points: pd.DataFrame, plot: Plot) -> tuple[float, float]:
    """How far intervals of x are drawn: no more beyond the points than half of what these span."""
    x, (low, high) = points[plot.x], bounds(points, plot)
    half = (x.max() - x.min()) / 2 or x.max() / 2
    return max(low.min(), x.min() - half), min(high.max(), x.max() + half)


def draw_bars(axes: Axes, placed: Placed, colour: str, alpha: float, order: float) -> None:
    """Thin intervals of both coordinates."""
    x, y = placed.x, placed.y
    y_bars = [y - placed.y_ends[0], placed.y_ends[1] - y]
    x_bars = [x - placed.x_ends[0], placed.x_ends[1] - x]
    axes.errorbar(
        x, y, yerr=y_bars, xerr=x_bars, fmt="none", ecolor=colour, elinewidth=0.6, alpha=alpha, zorder=order
    )  # fmt: skip


def draw_series(axes: Axes, placed: Placed, style: Style, strong: bool, many: bool) -> None:
    """One reducer's line, markers and intervals, paler if others beat it everywhere; intervals pale among many."""
    alpha, order, width = (1.0, 4, 1.1) if strong else (0.6, 3, 0.7 if style.filled else 0.55)
    draw_bars(axes, placed, style.colour, (0.35 if many else 0.6) * alpha, order - 0.2)
    axes.plot(
        placed.x, placed.y, color=style.colour, linestyle=style.line, linewidth=width, alpha=alpha, label="_curve",
        **marker_of(style, 4.2 if strong else 3.4), zorder=order,
    )  # fmt: skip


def draw_dominated(axes: Axes, points: pd.DataFrame, group: Group, plot: Plot) -> dict[str, Line2D]:
    """A cross on every point that a floor dominates at this cost; what the key says of it, if there is one."""
    from matplotlib.lines import Line2D

    column = "dominated_time" if plot.is_speed else "dominated_flops" if plot.x == FLOPS.x else ""
    rows = points[points[column].notna() & (points[column] != "")] if column else points[:0]
    if rows.empty:
        return {}
    look: dict[str, Any] = {
        "linestyle": "none",
        "marker": "x",
        "markersize": 6.5,
        "markeredgewidth": 0.9,
        "color": BASELINE_COLOUR,
    }
    axes.plot(rows[plot.x], group.headline.scale * rows[group.headline.name], **look, label="_dominated", zorder=6.5)
    return {DOMINATED: Line2D([], [], **look)}


def draw_oracle(axes: Axes, rows: pd.DataFrame, style: Style, group: Group, plot: Plot) -> dict[str, Line2D]:
    """What the best of a method's rates for every image would reach, dotted, where that is known; what the key says."""
    from matplotlib.lines import Line2D

    rows = rows[rows[ORACLE].notna()].sort_values(f"{ORACLE}_gmacs")
    if plot.x != FLOPS.x or len(rows) < 2:
        return {}
    look: dict[str, Any] = {"linestyle": ":", "linewidth": 1.2}
    x, y = rows[f"{ORACLE}_gmacs"], group.headline.scale * rows[ORACLE]
    axes.plot(x, y, **look, color=style.colour, label="_oracle", zorder=2.5)
    return {BEST_BY_IMAGE: Line2D([], [], **look, color=BASELINE_COLOUR)}


def draw_unreduced(axes: Axes, placed: Placed, line: Line = BASELINE_LINE) -> None:
    """A star with its intervals, and the height of its score all along the axis."""
    draw_bars(axes, placed, BASELINE_COLOUR, 1.0, 5)
    for x, y in placed.points:
        axes.axhline(y, color=BASELINE_COLOUR, linestyle=line, linewidth=0.7, zorder=2)
        axes.plot(
            [x], [y], linestyle=line, linewidth=0.7, marker="*", markersize=9, color=BASELINE_COLOUR,
            markeredgecolor="white", markeredgewidth=0.5, label=UNREDUCED, zorder=6,
        )  # fmt: skip


def draw_frontier(axes: Axes, points: pd.DataFrame, group: Group, plot: Plot) -> set[tuple[float, float]]:
    """A wide, pale line under the points that surely no other point beats; returns these points.

    The scores of untrained methods are not theirs, so these neither beat others nor are on the line.
    """
    fair = points[~points.training.map(is_untrained).astype(bool)]
    fair = fair if len(fair) else points
    y = group.headline.scale * fair[group.headline.name]
    ends = zip(*bounds(fair, plot), strict=True)
    best = frontier(list(zip(fair[plot.x], y, strict=True)), plot.fewer_is_better, ends)
    if best:
        axes.plot(
            *zip(*best, strict=True), color=FRONTIER_COLOUR, linewidth=5, alpha=0.6, label=FRONTIER, zorder=1,
            solid_joinstyle="round", solid_capstyle="round",
        )  # fmt: skip
    return set(best)


def said_of_speed(points: pd.DataFrame, plot: Plot, noisy: bool, best: set[tuple[float, float]]) -> list[str]:
    """What a figure of speeds must say itself: that they are not to be ranked, and what is not on its frontier."""
    if not plot.is_speed:
        return []
    low, high = reach_of(points, plot)
    lows, highs = bounds(points, plot)
    cut = ["→ intervals end beyond the axis"] if lows.min() < low or highs.max() > high else []
    if noisy:
        return ["Noisy: do not rank by these speeds, so there is no frontier", *cut]
    return ["frontier: what is faster beyond the intervals" if best else "no frontier: intervals overlap", *cut]


def look_closer(axes: Axes, points: pd.DataFrame, best: set[tuple[float, float]], group: Group) -> list[str]:
    """Cut off what lies far below the rest and the frontier `best`, so that these can be told apart, and say so."""
    scores = group.headline.scale * points[group.headline.name]
    top = scores.max()
    lowest = min((y for _, y in best), default=scores.quantile(0.25))
    reach = max(2.5 * (top - scores.median()), 1.15 * (top - lowest) + 1)
    if scores.min() >= top - reach:
        return []
    foot, top = scores[scores >= top - reach].min(), axes.dataLim.y1
    margin = 0.04 * (top - foot) or 0.5
    axes.set_ylim(foot - margin, top + margin)
    return ["↓ ends below the axis"]


def draw_key(
    figure: Figure, styles: list[Style], narrow: bool, line: bool, further: Mapping[str, Line2D] | None = None
) -> None:
    """What the star, the hues and hollow markers mean, below the axes in as few rows as fit.

    line: whether there is a frontier. further: more entries, name -> a line that looks like what it stands for.
    """
    from matplotlib.lines import Line2D

    star = Line2D(
        [], [], color=BASELINE_COLOUR, linestyle=BASELINE_LINE, linewidth=0.7, marker="*", markersize=7,
        markeredgecolor="white", markeredgewidth=0.4,
    )  # fmt: skip
    entries = {UNREDUCED: star}
    if line:
        entries[FRONTIER] = Line2D([], [], color=FRONTIER_COLOUR, linewidth=4, alpha=0.6, solid_capstyle="butt")
    families = [family for family in (*FAMILIES, OTHERS) if any(style.family == family.name for style in styles)]
    entries |= {family.name: Line2D([], [], color=family.shades[0], linewidth=2.2) for family in families}
    hollow = [style for style in styles if not style.filled]
    if hollow:
        look = marker_of(replace(hollow[0], colour="#555555", marker="o"), 3.6)
        name = f"{UNTRAINED_SIGN} untrained" if narrow else "untrained"
        entries[name] = Line2D([], [], color="#555555", linestyle=UNTRAINED_LINE, linewidth=0.8, **look)
    entries |= further or {}
    shape = {"frameon": False, "handlelength": 1.5, "handletextpad": 0.5, "labelspacing": 0.3, "columnspacing": 1.1}
    for rows in range(1, len(entries) + 1):
        columns = -(-len(entries) // rows)
        legend = figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, **shape)
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        legend.remove()


def curve_name(key: tuple[str, str, str], narrow: bool, others: Iterable[tuple[str, str, str]] = ()) -> str:
    """What a curve is called at its end; where that must be short, only what tells it from the other curves."""
    reducer, options, training = key
    like = any(other[:2] == key[:2] and other != key for other in others)
    if narrow and not (like and not is_untrained(training)):
        return shorten(reducer_label(reducer, options), 20) + (UNTRAINED_SIGN if is_untrained(training) else "")
    return shorten(reducer_label(reducer, options, training_mark(training, short=True)), 36)


def score_label(group: Group, narrow: bool) -> str:
    """What the vertical axis shows."""
    if not group.random_weights:
        return group.headline.label
    return "Agreement with" + ("\n" if narrow else " ") + "unreduced model (%)"


def wrap(line: str, characters: int) -> str:
    """The line broken between its items, which ' · ' separates."""
    lines = [""]
    for item in line.split(" · "):
        longer = f"{lines[-1]} · {item}" if lines[-1] else item
        if len(longer) <= characters or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(item)
    return "\n".join(lines)
