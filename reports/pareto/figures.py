"""The files of Pareto plots: of a report, one an axis for all models of a task, and those that are asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from reports.groups import Group, groups
from reports.marks.floor_rows import hosted
from reports.pareto.by_runtime import further_runtimes
from reports.pareto.layers import MOST, Layer, layers_under, stack
from reports.pareto.overlay import draw_overlay
from reports.pareto.plots import FULL_WIDTH, METADATA, rendered
from reports.pareto.points import MEMORY, Plot, plots_of, timed_plot, valid_points
from reports.pareto.published_marks import published_marks
from suite.store.files import write_bytes

AXES = ("flops", "speed", "memory")
Files = dict[str, bytes]


def write_pareto(frame: pd.DataFrame, folder: str | Path, width: float = FULL_WIDTH) -> tuple[list[Path], list[str]]:
    """Write pareto_flops, pareto_speed and pareto_memory (.png, .svg, .pdf; `width` inches) into `folder`.

    All models of a task stand in one plot; of more than can be told apart, some in each of several, whose names end in
    a number. With several tasks (or scores) in the frame there is a plot for each, its name ending in theirs, and of
    every runtime beside the tables' own one of the speed, its name ending in the runtime's. A plot with no valid point
    is not written, and one of an earlier report is removed. Equal frames give equal bytes. `folder` is made if need be.

    Returns:
        The files written, and a note for each plot not written and for points that were left off.
    """
    folder = Path(folder)
    sheets = _sheets(hosted(list(groups(frame))))
    files: Files = {}
    notes: list[str] = []
    for name, layers in sheets.items():
        drawn, said = draw_files(layers, _measured(layers), width, end=name)
        files, notes = files | drawn, notes + said
        for runtime in dict.fromkeys(other for layer in layers for other in further_runtimes(layer.group)):
            drawn, said = draw_files(
                layers_under(layers, runtime), [timed_plot(layers[0].group)], width, end=f"{name}-{runtime}"
            )
            files, notes = files | drawn, notes + said
    for path in (path for kind in METADATA for path in folder.glob(f"pareto_*.{kind}") if path.name not in files):
        path.unlink()
    return save(files, folder), notes


def draw_files(
    layers: Sequence[Layer], plots: Sequence[Plot], width: float, published: Sequence[str] = (), end: str = ""
) -> tuple[Files, list[str]]:
    """The files of each plot of all layers by their names, <plot><end>.<kind>, and notes on what was left off.

    published: see `published_marks`. RequestError if nothing is published under a name.
    """
    files: Files = {}
    notes: list[str] = []
    for plot in plots:
        name, shown = plot.name + end, [layer for layer in layers if not valid_points(layer.group, plot)[0].empty]
        for layer in layers:
            _, left_off = valid_points(layer.group, plot)
            notes += [f"{layer.marked(name)}: left off, {why}: {', '.join(rows)}" for why, rows in left_off.items()]
            if layer not in shown:
                needed = f"{layer.group.headline.name} and {plot.x}"
                notes.append(f"{layer.marked(name)}: nothing to show, no finished cell has both {needed}")
        if not shown:
            continue
        marks, said = published_marks(published, [layer.group for layer in shown], plot)
        notes += said
        figure = partial(draw_overlay, shown, plot, width, marks)
        files |= {f"{name}.{kind}": data for kind, data in rendered(figure).items()}
    return files, notes


def plots_on(layer: Layer, axes: Sequence[str]) -> list[Plot]:
    """The plots of some axes: the speed of the whole model, and of its encoder apart, where there is more to it."""
    by_axis = {name: [plot] for name, plot in zip(AXES, plots_of(layer.group), strict=True)}
    if layer.group.shown.throughput:
        by_axis["speed"].append(timed_plot(layer.group))
    return [plot for axis in AXES if axis in axes for plot in by_axis[axis]]


def save(files: Files, folder: Path) -> list[Path]:
    """Write them into the folder, made if need be."""
    for name, data in files.items():
        write_bytes(folder / name, data)
    return [folder / name for name in files]


def _sheets(parts: Sequence[Group]) -> dict[str, list[Layer]]:
    """What stands in one figure, by what the name of its file ends in."""
    alike: dict[tuple[str, str], list[Group]] = {}
    for part in parts:
        alike.setdefault((part.task, part.headline.name), []).append(part)
    tasks = [task for task, _ in alike]
    found: dict[str, list[Layer]] = {}
    for (task, score), of in alike.items():
        named = [task] if len(set(tasks)) > 1 else []
        named += [score] if tasks.count(task) > 1 else []
        end = "".join(f"-{_plain(name)}" for name in named)
        layers = stack(of)
        sheets = [layers[i : i + MOST] for i in range(0, len(layers), MOST)]
        found |= {f"{end}-{i}" if len(sheets) > 1 else end: sheet for i, sheet in enumerate(sheets, 1)}
    return found


def _measured(layers: Sequence[Layer]) -> list[Plot]:
    """All plots, but for that of memory where nobody measured it."""
    memory = any(layer.group.frame[MEMORY.x].notna().any() for layer in layers)
    return [plot for plot in plots_of(layers[0].group) if memory or plot.x != MEMORY.x]


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text)
