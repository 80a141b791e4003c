"""Methods by runtimes as a picture: speed-up over the unreduced model in the same runtime, and images a second."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.pareto.plots import FULL_WIDTH, METADATA, rendered
from reports.tables.runtimes import Grid, cell_of, grid_of
from reports.tables.speeds import speed_parts
from suite.store.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW = 0.24  # inches
REACH = 2.0  # speed-ups of its inverse and of itself are the ends of the colours


def write_runtimes(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """runtimes.png and its like in `folder`, of several groups or devices with a number; none of a single runtime."""
    for file in (file for kind in METADATA for file in folder.glob(f"runtimes*.{kind}")):
        file.unlink()  # of an earlier report
    drawn = []
    for heading, rows in speed_parts(frame):
        for device in dict.fromkeys(row.device for row in rows):
            grid = grid_of([row for row in rows if row.device == device])
            if grid.several:
                drawn.append((grid, " · ".join(filter(None, (heading, device)))))
    files = []
    for number, (grid, title) in enumerate(drawn, start=1):
        end = f"_{number}" if len(drawn) > 1 else ""
        for kind, data in rendered(partial(draw_runtimes, grid, title)).items():
            files.append(folder / f"runtimes{end}.{kind}")
            write_bytes(files[-1], data)
    return files


def draw_runtimes(grid: Grid, title: str) -> Figure:
    """One cell a method and runtime, coloured by its speed-up; 1 is white, and what was not timed grey."""
    from matplotlib.figure import Figure

    values = np.array([[grid.speedup.get((name, runtime), np.nan) for runtime in grid.runtimes] for name in grid.names])
    figure = Figure(figsize=(FULL_WIDTH, 0.9 + ROW * len(grid.names)), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.9")
    axes.imshow(np.log2(values), cmap="RdBu", vmin=-np.log2(REACH), vmax=np.log2(REACH), aspect="auto")
    for y, name in enumerate(grid.names):
        for x, runtime in enumerate(grid.runtimes):
            axes.text(x, y, cell_of(grid, name, runtime), ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(grid.runtimes)), grid.runtimes)
    axes.set_yticks(range(len(grid.names)), grid.names)
    axes.tick_params(length=0)
    axes.set_title(f"{title}\nSpeed-up over the unreduced model in the same runtime · im/s", loc="left", fontsize=8)
    return figure
