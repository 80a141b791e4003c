"""Latency over batch size: the median and the slowest percentile of every method, a panel a runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.pareto.labels import set_log_ticks
from reports.pareto.plots import FULL_WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLOWEST = ("p99_ms", "p90_ms", "p50_ms")


def draw_latency(records: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Lines: medians. Bars above them: to the slowest percentile that is known. One panel a runtime, one scale."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    runtimes = list(dict.fromkeys(record["runtime"] for record in records)) or [""]
    methods = list(dict.fromkeys(record["method"] for record in records))
    figure = Figure(figsize=(FULL_WIDTH, 2.6), layout="constrained")
    panels = figure.subplots(1, len(runtimes), sharey=True, squeeze=False)[0]
    for panel, runtime in zip(panels, runtimes):
        for place, method in enumerate(methods):
            own = [r for r in records if (r["runtime"], r["method"]) == (runtime, method) and r["p50_ms"] is not None]
            own.sort(key=lambda record: record["batch_size"])
            x = [record["batch_size"] * (1 + 0.03 * place) for record in own]  # bars stand side by side
            y = [record["p50_ms"] for record in own]
            above = [next(r[name] for name in SLOWEST if r[name] is not None) - r["p50_ms"] for r in own]
            panel.errorbar(
                x, y, yerr=[[0] * len(y), above], color=f"C{place % 10}", marker="o", markersize=3, linewidth=1,
                elinewidth=0.6, capsize=1.5, label=method,
            )  # fmt: skip
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        batches = sorted({record["batch_size"] for record in records})
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.xaxis.set_minor_locator(NullLocator())
        if batches:
            panel.set_xlim(batches[0] / 1.25, batches[-1] * 1.25 * 1.03 ** len(methods))
        panel.set_title(runtime, fontsize=8)
        panel.set_xlabel("Batch size")
    set_log_ticks(panels[0].yaxis, *panels[0].get_ylim())
    panels[0].set_ylabel("ms a call: median, up to p99")
    if methods:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=6)
    figure.suptitle(title, fontsize=8, x=0.01, ha="left")
    return figure
