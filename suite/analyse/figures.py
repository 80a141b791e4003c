"""The figures of the analyses, one column of a page wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from reports.pareto.plots import COLUMN_WIDTH
from suite.analyse.seed_interval import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREYS, BLUES = ("#4D4D4D", "#ADADAD"), ("#9CCBEA", "#45A5DC", "#0072B2", "#00436B", "#00243A")
APART = (
    "#0072B2",
    "#E08A00",
    "#00805F",
    "#B0478A",
    "#56B4E9",
    "#A63A00",
    "#1B1B1B",
)  # of Okabe and Ito's colours, which colour-blind readers can tell apart
MARKERS, HOLLOW = ("o", "s", "^", "D", "v", "P", "X"), "white"
BAR: dict[str, Any] = {"elinewidth": 0.7, "capsize": 1.5, "capthick": 0.7, "linewidth": 1.0, "markersize": 3.6}
DOT = {name: value for name, value in BAR.items() if name != "linewidth"}
KEY = {"frameon": False, "handlelength": 1.8, "columnspacing": 1.1, "handletextpad": 0.5}
Series = Sequence[tuple[float, Estimate | None]]


def draw_correlation(table: Mapping[str, Mapping[str, Estimate | None]], depth: int, title: str) -> Figure:
    """Tau over the blocks, one curve per embedding; changes are left to the table."""
    figure, (axes,) = panels(1, 2.3, title)
    labels = [label for label in table["block 1"] if not label.startswith("change")]
    for i, label in enumerate(labels):
        trained = label.startswith("trained")
        colour = BLUES[min(i, len(BLUES) - 1)] if trained else GREYS[i]
        series = [(block, table[f"block {block}"][label]) for block in range(1, depth + 1)]
        curve(axes, series, label, colour, MARKERS[i % len(MARKERS)], filled=trained, dashed=not trained)
    axes.axhline(0, color="#BBBBBB", linewidth=0.6, zorder=1)
    axes.set_xticks(range(1, depth + 1, 1 if depth <= 12 else 2))
    axes.set_xlabel("Block")
    axes.set_ylabel("Kendall's τ, keys and embedding")
    key_below(figure, axes)
    return figure


def draw_against_flops(curves: Mapping[str, Series], title: str, label: str) -> Figure:
    """A score (%) over the change of FLOPs (%), one curve per row."""
    figure, (axes,) = panels(1, 2.3, title)
    looks = cycle(zip((GREYS[1], *APART), cycle(MARKERS)))
    for (name, series), (colour, marker) in zip(curves.items(), looks):
        curve(axes, series, name, colour, marker, scale=100, dashed=colour in GREYS)
    axes.set_xlabel("Change of FLOPs (%)")
    axes.set_ylabel(label)
    key_below(figure, axes, columns=2)
    return figure


def draw_growth(parts: Mapping[str, Mapping[str, Series]], title: str, label: str) -> Figure:
    """A difference (points) over the number of samples, one panel per FLOPs target, one curve per number of updates."""
    figure, all_axes = panels(len(parts), 1.35, title)
    for axes, (target, curves) in zip(all_axes, parts.items()):
        for i, (name, series) in enumerate(curves.items()):
            colour = BLUES[min(i, len(BLUES) - 1)]
            curve(axes, series, name, colour, MARKERS[i % len(MARKERS)], scale=100, shift=1 + 0.03 * i)
        axes.axhline(0, color="#555555", linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
        axes.set_xscale("log", base=2)
        ticks = sorted({x for series in curves.values() for x, _ in series})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_title(f"FLOPs {target.replace('-', '−').replace('%', ' %')}", loc="left")
    all_axes[-1].set_xlabel("Training samples")
    figure.supylabel(label, fontsize=7.5)
    key_below(figure, all_axes[0])
    return figure


def draw_changes(rows: Sequence[str], changes: Mapping[str, Mapping[str, Estimate]], title: str, label: str) -> Figure:
    """Shares (%) of the rows, one below the other, a marker for every name in `changes`: name -> row -> share."""
    figure, (axes,) = panels(1, 0.35 + 0.24 * len(rows), title)
    places = {row: place for place, row in enumerate(rows)}
    for i, (name, found) in enumerate(changes.items()):
        shift = 0.16 * (i - (len(changes) - 1) / 2)
        x, low, high = ([100 * getattr(one, part) for one in found.values()] for part in ("value", "low", "high"))
        bars = [[a - b for a, b in zip(x, low)], [b - a for a, b in zip(x, high)]]
        y = [places[row] + shift for row in found]
        axes.errorbar(x, y, xerr=bars, label=name, color=APART[i], marker=MARKERS[i], linestyle="", zorder=3, **DOT)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    key_below(figure, axes)
    return figure


def panels(count: int, height: float, title: str) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels below each other, `height` inches each, that share their x axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN_WIDTH, count * height + 0.55), layout="constrained")
    axes = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    for one in axes:
        one.grid(True, color="#EDEDED", linewidth=0.5)
        one.set_axisbelow(True)
    figure.suptitle(title, fontsize=7, x=0.02, ha="left")
    return figure, axes


def curve(
    axes: Axes, series: Series, name: str, colour: str, marker: str, *, scale: float = 1, shift: float = 1,
    filled: bool = True, dashed: bool = False,
) -> None:  # fmt: skip
    """Means with their intervals, by x; what is not known is left out. shift: bars of several curves stand apart."""
    known = sorted(((x, found) for x, found in series if found is not None), key=lambda point: point[0])
    if not known:
        return
    x = [shift * place for place, _ in known]
    y, low, high = ([scale * getattr(found, part) for _, found in known] for part in ("value", "low", "high"))
    bars = [[max(0.0, value - bound) for value, bound in zip(y, low)], [max(0.0, b - v) for v, b in zip(y, high)]]
    axes.errorbar(
        x, y, yerr=bars, label=name, color=colour, marker=marker, markerfacecolor=colour if filled else HOLLOW,
        linestyle=(0, (2.5, 1.8)) if dashed else "-", zorder=3, **BAR,
    )  # fmt: skip


def key_below(figure: Figure, axes: Axes, columns: int = 3) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(columns, max(1, len(names))), **KEY)
