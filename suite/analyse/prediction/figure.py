"""Predicted over published speeds: a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.pareto.labels import set_log_ticks
from reports.pareto.plots import FULL_WIDTH
from suite.analyse.figures import APART, HOLLOW, KEY
from suite.measure.prediction.fitted import FITTED, HELD_OUT, MERGER
from suite.measure.prediction.gpus import GPUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[dict[str, Any]]
LOOKS = {MERGER: ("v", 0.35, 2.6), FITTED: ("o", 0.9, 3.4), HELD_OUT: ("D", 1.0, 3.6)}
"""Marker, opacity and size; what was held out is filled and stands in front."""
UNPLACED = "#8A8A8A"


def draw_fit(rows: Rows, unplaced: Rows = ()) -> Figure:
    """Images/s and speed-ups, each on logarithmic axes: colour is the GPU, marker what the speed was to the fit.

    rows: of `Fit.rows`; unplaced: speed-ups whose GPU is not named, with the least and largest of what all GPUs give.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(FULL_WIDTH, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = dict(zip(dict.fromkeys(row["gpu"] for row in rows), APART))
    for row in unplaced:
        published = row["published_speedup"]
        right.plot([published] * 2, [row["least"], row["most"]], color=UNPLACED, linewidth=0.8, alpha=0.6, zorder=2)
    for place, (part, (marker, opacity, size)) in enumerate(LOOKS.items()):
        for row in (row for row in rows if row["part"] == part):
            colour = colours[row["gpu"]]
            look = {
                "marker": marker, "alpha": opacity, "markersize": size, "linestyle": "none", "zorder": 3 + place,
                "markeredgecolor": colour, "markerfacecolor": colour if part == HELD_OUT else HOLLOW,
                "markeredgewidth": 0.8,
            }  # fmt: skip
            left.plot(row["published"], row["predicted"], **look)
            if row["published_speedup"] is not None:
                right.plot(row["published_speedup"], row["predicted_speedup"], **look)
    _finish(left, "images/s")
    _finish(right, "speed-up over the unreduced model")
    handles = [
        Line2D([], [], color=colour, marker="s", linestyle="none", markersize=4, label=GPUS[gpu].title)
        for gpu, colour in colours.items()
    ] + [
        Line2D(
            [], [], color="#333333", marker=marker, linestyle="none", markersize=4,
            markerfacecolor="#333333" if part == HELD_OUT else HOLLOW, label=part,
        )
        for part, (marker, *_) in LOOKS.items()
    ]  # fmt: skip
    if unplaced:
        handles.append(Line2D([], [], color=UNPLACED, linewidth=1, label="GPU not named: range over all"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, **KEY)
    figure.suptitle("Predicted speeds beside published ones", fontsize=8, x=0.02, ha="left")
    return figure


def _finish(axes: Axes, what: str) -> None:
    """Equal logarithmic axes with the line on which predicted and published agree, and a quarter to both sides."""
    points = axes.dataLim
    low, high = min(points.min) / 1.15, max(points.max) * 1.15
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel=f"Published {what}", ylabel=f"Predicted {what}")
    axes.plot([low, high], [low, high], color="#555555", linewidth=0.7, zorder=1)
    for factor in (0.8, 1.25):
        axes.plot([low, high], [factor * low, factor * high], color="#BBBBBB", linewidth=0.6, dashes=(4, 3), zorder=1)
    for axis in (axes.xaxis, axes.yaxis):
        set_log_ticks(axis, low, high)
    axes.grid(True, color="#EDEDED", linewidth=0.5)
    axes.set_axisbelow(True)
