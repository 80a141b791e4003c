"""Curves named at their ends: a column of names beside the data, in the order of the curves, none upon another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.pareto.style import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

POINT = 1 / 72  # inch
EDGE, GLYPH, GUTTER = 5 * POINT, 9 * POINT, 16 * POINT  # room at the axes' edge, for a marker, and for a leader: inches
PITCH = 1.22  # from one name to the next, in font sizes
FAR = 0.25  # of the axes' width
TICK = 0.42  # inches that a number on the x-axis needs at least


@dataclass(frozen=True)
class End:
    """The end of one curve: what it is called, where it is (data coordinates), and whether to stress it."""

    name: str
    x: float
    y: float
    style: Style
    strong: bool


def label_ends(figure: Figure, axes: Axes, ends: list[End], *, left: bool, size: float) -> None:
    """Put the names of `ends` left or right of all that `axes` shows, joined to the ends by thin lines.

    The x-axis is extended by the room that the names need, and the figure grows if it is too low for them. Ends
    below the axis are named at its foot with their value. `size` is the names' font size in points.
    """
    texts, step = [_text(axes, end, left, size) for end in ends], size * PITCH * POINT
    scale, (start, stop) = axes.xaxis.get_transform(), axes.get_xlim()
    low, high = scale.transform([start, stop])  # in units in which the axis is even
    figure.draw_without_rendering()
    missing = step * (len(ends) + 0.5) - axes.bbox.height / figure.dpi
    if missing > 0:
        figure.set_figheight(figure.get_figheight() + missing)
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what follows is placed in inches: nothing may move any more

    wide, tall = axes.bbox.width / figure.dpi, axes.bbox.height / figure.dpi
    column = max((text.get_window_extent().width for text in texts), default=0) / figure.dpi + EDGE
    room = column + GLYPH + GUTTER
    share = min(room / wide, 0.7)
    added = (high - low) * share / (1 - share)
    last = high - (high - low) * TICK / 4 / (wide - room) if left else high  # its number must not leave the page
    last, beyond = scale.inverted().transform([last, low - added if left else high + added])
    axes.set_xlim(min(start, beyond), max(stop, beyond))
    _set_ticks(axes, start, last, most=max(2, int((wide - room) / TICK)))
    axes.spines["bottom"].set_bounds(start, stop)
    axes.xaxis.label.set(x=1 if left else 0, ha="right" if left else "left")
    axes.axvspan(*((beyond, start) if left else (stop, beyond)), color="white", linewidth=0, zorder=2.5)

    foot, top = axes.get_ylim()
    targets = [(end.y - foot) / (top - foot) * tall for end in ends]
    glyph_at = (column + GLYPH / 2) / wide if left else 1 - (column + GLYPH / 2) / wide
    for end, text, y in zip(ends, texts, spread_out(targets, step, step / 2, tall - step / 2), strict=True):
        text.set_position((column / wide if left else 1 - column / wide, y / tall))
        _join(axes, end, glyph_at, y / tall, shown=end.y >= foot)


def spread_out(targets: list[float], step: float, low: float, high: float) -> list[float]:
    """Places as near to their targets (least squares) as being `step` apart, in the targets' order, allows.

    All lie within low..high if there is room for them.
    """
    order = sorted(range(len(targets)), key=lambda i: targets[i])
    blocks: list[list[float]] = []  # [sum, count] of the targets less their offset: neighbours that touch are one block
    for place, i in enumerate(order):
        blocks.append([targets[i] - place * step, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    starts = [total / count for total, count in blocks for _ in range(int(count))]
    highest = high - (len(targets) - 1) * step
    places = [max(low, min(start, highest)) + place * step for place, start in enumerate(starts)]
    return [place for _, place in sorted(zip(order, places, strict=True))]


def _set_ticks(axes: Axes, low: float, high: float, most: int) -> None:
    """Round numbers between `low` and `high`."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    even = axes.get_xscale() == "linear"
    locator = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]) if even else LogLocator(subs=(1, 2, 5), numticks=most)
    axes.set_xticks([tick for tick in locator.tick_values(low, high) if low <= tick <= high])
    if not even:
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")


def set_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Numbers at a logarithmic axis from `low` to `high`: powers of ten, and some between them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1,) if high / low > 50 else (1, 1.5, 2, 3, 4, 5, 7)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _text(axes: Axes, end: End, left: bool, size: float) -> Text:
    below = end.y < axes.get_ylim()[0]
    text = axes.text(
        0.5, 0.5, f"{end.name} ↓ {end.y:.0f}" if below else end.name, transform=axes.transAxes, fontsize=size,
        color=end.style.ink, ha="right" if left else "left", va="center_baseline", zorder=7,
        fontweight="bold" if end.strong else "normal",
    )  # fmt: skip
    text.set_in_layout(False)
    return text


def _join(axes: Axes, end: End, x: float, y: float, shown: bool) -> None:
    """The curve's marker beside its name, and a thin line from there to the curve's end if that is shown."""
    style = end.style
    if shown:
        at = axes.transAxes.inverted().transform(axes.transData.transform((end.x, end.y)))[0]
        far = abs(at - x) > FAR  # a long line would be taken for a curve
        line = {
            "linestyle": (0, (1, 2.5)) if far else "-",
            "arrowstyle": "-",
            "color": style.colour,
            "linewidth": 0.4,
            "alpha": 0.6,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axes.annotate("", (end.x, end.y), (x, y), textcoords="axes fraction", arrowprops=line, zorder=2.6)
    axes.plot([x], [y], transform=axes.transAxes, linestyle="none", **marker_of(style, 3.6), zorder=7, label="_end")


def marker_of(style: Style, size: float) -> dict[str, Any]:
    """matplotlib's properties of the style's marker, `size` points high."""
    return {
        "marker": style.marker,
        "markersize": size * style.size,
        "markerfacecolor": style.colour if style.filled else "white",
        "markeredgecolor": "white" if style.filled else style.colour,
        "markeredgewidth": 0.4 if style.filled else 0.8,
    }
