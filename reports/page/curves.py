"""What the plots of a page show: cells as points, reducers as curves, and the axes to see them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reports.frame import AGREEMENT
from reports.groups import Group
from reports.page.markers import look
from reports.pareto.by_runtime import further_runtimes, under
from reports.pareto.points import Plot, bounds, is_noisy, plots_of, series_of, timed_plot, valid_points
from reports.pareto.style import styles_for
from reports.speeds import INTERVAL
from reports.text.wording import is_untrained, known, reducer_label, row_label, training_mark
from suite.store.folder import CellFolder
from suite.store.sealed import DamagedError

SHORT = {"gmacs": "GFLOPs", "im_s": "im/s", "peak_memory_mib": "memory"}


def curves_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Name and look of every (reducer, options, training) of the frame, in the order of their names."""
    styles = styles_for(list(series_of(frame)))
    return [
        {
            "key": list(key),
            "name": reducer_label(key[0], key[1], training_mark(key[2], short=True)),
            "untrained": is_untrained(key[2]),
            **look(styles[key]),
        }
        for key in series_of(frame)
    ]


def axes_of(group: Group) -> list[dict[str, Any]]:
    """What the horizontal axis can be: cost, speed, under every runtime, and memory, as far as they were measured."""
    axes = [axis_of(group, plot) for plot in plots_of(group)]
    axes += [axis_of(under(group, runtime), timed_plot(group), runtime) for runtime in further_runtimes(group)]
    return [axis for axis in axes if axis["at"]]


def axis_of(group: Group, plot: Plot, runtime: str = "") -> dict[str, Any]:
    """An axis, `at`: where on it the cells that belong there stand, by key. runtime: to name it by."""
    points, left_off = valid_points(group, plot)
    return {
        "name": f"{plot.x} {runtime}".rstrip(),
        "label": f"{plot.label}, {runtime}".rstrip(", "),
        "short": f"{SHORT.get(plot.x, plot.label)} {runtime}".rstrip(),
        "fewer": plot.fewer_is_better,
        "at": dict(zip(points.index, points[plot.x], strict=True)),
        "ends": dict(zip(points.index, zip(*bounds(points, plot), strict=True), strict=True)),
        "noisy": is_noisy(group, plot),
        "notes": [f"left off, {why}: {', '.join(rows)}" for why, rows in left_off.items()],
    }


def scores_of(group: Group) -> list[dict[str, Any]]:
    """What the vertical axis can be: the metrics that any cell has, the one to compare by first."""
    metrics = [AGREEMENT] if group.random_weights else [m for m in group.shown.metrics if not m.hidden]
    if not group.random_weights:
        metrics.append(AGREEMENT)
    return [
        {"name": metric.name, "label": _score_label(metric), "short": metric.label, "scale": metric.scale}
        for metric in metrics
        if group.frame[metric.name].notna().any()
    ]


def join_axes(by_group: Mapping[int, list[dict[str, Any]]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The axes of all groups of a task, each once: `noisy` lists the groups that are; notes say whose they are.

    by_group: number of a group -> its `axes_of`; labels: of all groups.
    """
    joined: dict[str, dict[str, Any]] = {}
    for number, axes in by_group.items():
        for axis in axes:
            about = {name: axis[name] for name in ("name", "label", "short", "fewer")}
            into = joined.setdefault(axis["name"], {**about, "noisy": [], "notes": []})
            into["noisy"] += [number] if axis["noisy"] else []
            into["notes"] += [f"{labels[number]}: {note}" if len(labels) > 1 else note for note in axis["notes"]]
    return list(joined.values())


def join_scores(scores: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The scores of all groups of a task, each once."""
    return list({score["name"]: score for of in scores for score in of}.values())


def point_of(row: Any, scores: list[dict[str, Any]], axes: list[dict[str, Any]]) -> dict[str, Any]:
    """One cell's coordinates; scores as people read them."""
    return {
        "x": {axis["name"]: axis["at"][row.Index] for axis in axes if row.Index in axis["at"]},
        "ends": {axis["name"]: axis["ends"][row.Index] for axis in axes if row.Index in axis["at"]},
        "y": {
            score["name"]: [score["scale"] * getattr(row, score["name"] + end) for end in INTERVAL] for score in scores
        },
    }


def blocks_of(folder: Path) -> dict[str, Any]:
    """Tokens that enter the first block and leave each, and MACs of each; None where that is unknown beforehand, or
    damaged."""
    cell = CellFolder(folder)
    try:
        about, flops = cell.read("cell") or {}, cell.read("flops")
    except DamagedError:
        return {"tokens": None, "macs": None}
    planned = about.get("planned_counts")
    return {
        "tokens": [about["tokens_in"], *planned] if planned else None,
        "macs": (flops or {}).get("by_block") or None,
    }


def name_of(row: Any) -> str:
    """The cell's name: reducer, what it was trained with, and the rate."""
    label = reducer_label(row.reducer, row.options, training_mark(row.training, short=True))
    return f"{label} {row.rate}".strip() if known(row.rate) else row_label(row)


def _score_label(metric: Any) -> str:
    return "Agreement with unreduced model (%)" if metric.name == AGREEMENT.name else metric.label
