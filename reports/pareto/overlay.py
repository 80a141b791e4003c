"""Several runs in one figure, and published points among them: line patterns tell runs apart, markers methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.order import method_order
from reports.pareto.curve_drawing import (
    coordinates,
    curve_name,
    draw_dominated,
    draw_frontier,
    draw_key,
    draw_oracle,
    draw_series,
    draw_unreduced,
    look_closer,
    reach_of,
    said_of_speed,
    score_label,
    wrap,
)
from reports.pareto.labels import End, label_ends
from reports.pareto.layers import Layer
from reports.pareto.plots import MANY, NARROW, canvas, characters, draw
from reports.pareto.points import Plot, is_noisy, series_of, valid_points
from reports.pareto.published_marks import Mark
from reports.pareto.style import BASELINE_COLOUR, BASELINE_LINE, PATTERNS, Style, styles_for
from reports.text.headings import RANDOM_WEIGHTS, circumstances, images
from reports.text.wording import is_untrained, shorten
from suite.contract.baseline import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FILLS = ("none", "left", "bottom", "right", "top")  # of published markers, one a paper
INK = "#333333"
WIDE = 6  # the largest x over the smallest beyond which the small models would lie in one heap


def draw_overlay(layers: Sequence[Layer], plot: Plot, width: float, marks: Sequence[Mark] = ()) -> Figure:
    """The plot of all layers as a figure of `width` inches. One layer without published points is `pareto.draw`'s."""
    if len(layers) == 1 and not marks:
        return draw(layers[0].group, plot, width)
    group, narrow = layers[0].group, width < NARROW
    points = [valid_points(layer.group, plot)[0] for layer in layers]
    every = pd.concat(points)
    styles = styles_for(
        sorted({key for layer in layers for key in series_of(layer.group.frame)}, key=lambda key: method_order(*key))
    )
    many = sum(len(series_of(part)) for part in points) > MANY
    figure, axes = canvas(width)
    if every[plot.x].max() > WIDE * every[plot.x].min():
        axes.set_xscale("log")
    noisy, reach = any(is_noisy(layer.group, plot) for layer in layers), reach_of(every, plot)
    best = set() if noisy else draw_frontier(axes, every, group, plot)
    ends, used = [], []
    dotted: dict[str, Line2D] = {}
    for number, (layer, part) in enumerate(zip(layers, points, strict=True)):
        for key, rows in series_of(part).items():
            style = _of_layer(styles[key], number, len(layers))
            placed = coordinates(rows, group, plot, reach)
            strong = not is_untrained(key[2]) and not best.isdisjoint(placed.points)
            draw_series(axes, placed, style, strong, many)
            dotted |= draw_oracle(axes, rows, style, layer.group, plot) if strong else {}
            used.append(style)
            name = layer.marked(curve_name(key, narrow, series_of(part)))
            ends.append(End(name, *placed.points[0 if plot.fewer_is_better else -1], style, strong))
        line = PATTERNS[number % len(PATTERNS)] if len(layers) > 1 else BASELINE_LINE
        draw_unreduced(axes, coordinates(part[part.reducer == BASELINE], layer.group, plot, reach), line)
    crosses = draw_dominated(axes, every, group, plot)
    fills = dict(zip(dict.fromkeys((mark.paper, mark.terms) for mark in marks), FILLS))
    _draw_marks(axes, marks, fills, styles)
    axes.set_xlabel(plot.label)
    axes.set_ylabel(score_label(group, narrow))
    axes.margins(x=0.04, y=0.06)
    remarks = said_of_speed(every, plot, noisy, best)
    remarks += ["untrained ones are not on the frontier"] if every.training.map(is_untrained).any() and best else []
    remarks += look_closer(axes, every, best, group)
    _make_room(axes, marks)
    axes.set_title(_heading(layers, plot, remarks, characters(width)), loc="left")
    draw_key(figure, used, narrow, bool(best), crosses | dotted | _entries(layers, fills, 26 if narrow else 90))
    label_ends(figure, axes, ends, left=plot.fewer_is_better, size=5.6 if narrow else 6.5)
    return figure


def _of_layer(style: Style, number: int, layers: int) -> Style:
    return style if layers == 1 else replace(style, line=PATTERNS[number % len(PATTERNS)])


def _draw_marks(
    axes: Axes, marks: Sequence[Mark], fills: dict[tuple[str, str], str], styles: dict[tuple[str, str, str], Style]
) -> None:
    """Hollow markers, of the shape and colour that the method's curve has here."""
    looks = {key[0]: style for key, style in reversed(styles.items())}
    for mark in marks:
        style = looks.get(mark.reducer)
        colour = BASELINE_COLOUR if style is None else style.colour
        axes.plot(
            [mark.x],
            [mark.y],
            **_hollow(fills.get((mark.paper, mark.terms), FILLS[0]), colour),
            marker="*" if style is None else style.marker,
            markersize=8.5 if style is None else 5.4 * style.size,
            zorder=6,
        )


def _hollow(fill: str, colour: str) -> dict[str, Any]:
    return {
        "linestyle": "none", "color": colour, "markerfacecolor": "white" if fill == "none" else colour,
        "markerfacecoloralt": "white", "fillstyle": "full" if fill == "none" else fill, "markeredgecolor": colour,
        "markeredgewidth": 0.9, "label": "_published",
    }  # fmt: skip


def _make_room(axes: Axes, marks: Sequence[Mark]) -> None:
    """No published point is cut off."""
    low, high = axes.get_ylim()
    heights = [mark.y for mark in marks]
    if heights and not low < min(heights) <= max(heights) < high:
        margin = 0.06 * (max(high, *heights) - min(low, *heights))
        axes.set_ylim(min(low, min(heights) - margin), max(high, max(heights) + margin))


def _entries(layers: Sequence[Layer], fills: dict[tuple[str, str], str], characters: int) -> dict[str, Line2D]:
    """What the key says of runs and papers."""
    from matplotlib.lines import Line2D

    entries = {}
    for number, layer in enumerate(layers):
        if layer.letter:
            line = Line2D([], [], color=INK, linestyle=PATTERNS[number % len(PATTERNS)], linewidth=1.1)
            entries[shorten(f"{layer.letter}: {layer.label}", characters + 10)] = line
    for (paper, terms), fill in fills.items():
        said = ", ".join(filter(None, ("published", terms)))
        look = {**_hollow(fill, INK), "marker": "o", "markersize": 4.6}
        entries[shorten(paper, characters) + (f" ({said})" if len(paper + said) < characters else " (published)")] = (
            Line2D([], [], **look)
        )
    return entries


def _heading(layers: Sequence[Layer], plot: Plot, remarks: list[str], characters: int) -> str:
    """What all runs share, once; what they do not, for each."""
    group = layers[0].group
    counts = dict.fromkeys(images(layer.group) for layer in layers)
    models = dict.fromkeys(layer.group.model for layer in layers)
    lines = [" · ".join([group.task, *(models if len(models) == 1 else ()), " / ".join(counts)])]
    if plot.timed:
        where = {layer.letter: circumstances(layer.group, plot.whole) for layer in layers}
        said = {text: [letter for letter, other in where.items() if other == text] for text in where.values()}
        lines += [f"{', '.join(by)}: {text}" if len(said) > 1 else text for text, by in said.items()]
    else:
        lines[0] += f" · {' / '.join(dict.fromkeys(layer.group.precision for layer in layers))}"
    lines += [RANDOM_WEIGHTS] if group.random_weights else []
    lines += [" · ".join(remarks)] if remarks else []
    return "\n".join(wrap(line, characters) for line in lines)
