"""What 8-bit integers cost every method in accuracy: differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.pareto.plots import COLUMN_WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_quantised(records: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """A line a method, a mark a runtime: top-1 of int8 less that of fp32, in points, with the 95 % interval."""
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(record["method"] for record in records))
    runtimes = list(dict.fromkeys(record["runtime"] for record in records))
    figure = Figure(figsize=(COLUMN_WIDTH, 1.1 + 0.28 * len(methods)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.6", linewidth=0.7)
    for place, runtime in enumerate(runtimes):
        own = [record for record in records if record["runtime"] == runtime]
        x = [100 * record["difference"] for record in own]
        reach = [
            [100 * (record["difference"] - record["difference_low"]) for record in own],
            [100 * (record["difference_high"] - record["difference"]) for record in own],
        ]
        y = [methods.index(record["method"]) + 0.2 * place - 0.1 for record in own]
        axes.errorbar(x, y, xerr=reach, fmt="o", markersize=3, linewidth=0.8, color=f"C{place}", label=runtime)
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.set_xlabel("Top-1 of int8 less that of fp32 (points)")
    axes.legend(fontsize=6)
    axes.set_title(title, loc="left", fontsize=8)
    return figure
