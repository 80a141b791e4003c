"""Pareto plots of a run: accuracy against FLOPs and against measured speed, as PNG, SVG and PDF.

matplotlib is imported when a plot is drawn and not before; figures are made without pyplot, so nothing global
changes and no display is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reports.captions import RANDOM_WEIGHTS, circumstances, images
from reports.frame import Group, groups
from reports.style import BASELINE_COLOUR, FRONTIER_COLOUR, Style, styles_for
from reports.text import reducer_label, row_label, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNREDUCED, FRONTIER = "unreduced", "frontier"
FULL_WIDTH, COLUMN_WIDTH = 6.9, 3.3  # inches: a page's text and one of its two columns
# No date, no version, and ids from a fixed salt: the same frame gives the same bytes.
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
RC = {
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.titlesize": 7.5, "axes.labelsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "svg.hashsalt": "reducerbench", "pdf.fonttype": 42, "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """One kind of Pareto plot: what is on its x-axis, and which end of it is better."""

    name: str
    x: str
    label: str
    fewer_is_better: bool


FLOPS = Plot("pareto_flops", "gmacs", "GFLOPs (multiply-adds) per image", fewer_is_better=True)
SPEED = Plot("pareto_speed", "im_s", "Images per second", fewer_is_better=False)


def write_pareto(frame: pd.DataFrame, folder: str | Path, width: float = FULL_WIDTH) -> tuple[list[Path], list[str]]:
    """Write pareto_flops and pareto_speed (.png, .svg, .pdf; `width` inches) into `folder`, made if need be.

    With several (task, model, ...) in the frame there is one plot for each, its name ending in theirs. A plot
    with no valid point is not written, and one of an earlier report is removed. Equal frames give equal bytes.

    Returns:
        The files written, and a note for each plot not written and for points that were left off.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts, files, said = list(groups(frame)), {}, []
    for plot in (FLOPS, SPEED):
        for part in parts:
            name = plot.name if len(parts) == 1 else f"{plot.name}-{_slug(part)}"
            points, left_off = valid_points(part, plot)
            said += [f"{name}: left off, {why}: {', '.join(rows)}" for why, rows in left_off.items()]
            if points.empty:
                said.append(f"{name}: not written, no finished cell has both {_score(part)} and {plot.x}")
                continue
            files |= {f"{name}.{kind}": data for kind, data in _render(part, plot, width).items()}
        stale = [path for kind in METADATA for path in folder.glob(f"{plot.name}*.{kind}") if path.name not in files]
        for path in stale:
            path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files], said


def valid_points(group: Group, plot: Plot) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """(the finished rows that belong on the plot, {why: rows that were measured but do not})."""
    frame = group.frame[group.frame.status == "done"]
    frame = frame[frame[_score(group)].notna() & frame[plot.x].notna()]
    if plot is FLOPS:
        why, out = "FLOPs disputed", frame.disputed.astype(bool)
    else:
        timed = pd.Series([c.get("timed_batch_size") for c in group.context], group.frame.index)[frame.index]
        usual = timed[frame.reducer == "none"].to_list() or timed.mode().to_list() or [None]
        why, out = "timed at another batch size", timed.notna() & (timed != usual[0])
    rows = [row_label(row) for row in frame[out].itertuples()]
    return frame[~out], {why: rows} if rows else {}


def frontier(points: list[tuple[float, float]], fewer_is_better: bool) -> list[tuple[float, float]]:
    """The points (x, score) that no other point beats in one and equals or beats in the other, by ascending x."""
    sign = 1 if fewer_is_better else -1
    best, kept = float("-inf"), []
    for x, y in sorted(set(points), key=lambda point: (sign * point[0], -point[1])):
        if y > best:
            best = y
            kept.append((x, y))
    return sorted(kept)


def draw(group: Group, plot: Plot, width: float) -> Figure:
    """The plot as a figure of `width` inches; the legend is beside the axes, or below them in a narrow one."""
    from matplotlib.figure import Figure

    points, left_off = valid_points(group, plot)
    series = _series(points)
    styles = styles_for(list(_series(group.frame)))
    narrow, many = width < 5, len(series) > 8
    figure = Figure(figsize=(width, (2.9 if many else 2.4) if narrow else 3.4), layout="constrained")
    axes = figure.subplots()
    axes.grid(True, color="#EDEDED", linewidth=0.5)
    axes.set_axisbelow(True)
    _draw_frontier(axes, points, group, plot)
    for name, rows in series.items():
        _draw_series(axes, rows, styles[name], group, plot, many)
    _draw_unreduced(axes, points[points.reducer == "none"], group, plot)
    axes.set_xlabel(plot.label)
    axes.set_ylabel(_score_label(group, narrow))
    axes.margins(x=0.04, y=0.06)
    room = width - (0.6 if narrow else 2.0)
    axes.set_title(_heading(group, plot, left_off, int(room * 72 / 3.9)), loc="left")
    _place_legend(figure, axes, narrow)
    return figure


def _render(group: Group, plot: Plot, width: float) -> dict[str, bytes]:
    """The plot's files: {kind: bytes}."""
    from matplotlib import rc_context

    files = {}
    with rc_context(RC):
        figure = draw(group, plot, width)
        for kind, metadata in METADATA.items():
            buffer = BytesIO()
            figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
            files[kind] = buffer.getvalue()
    return files


def _draw_series(axes: Axes, rows: pd.DataFrame, style: Style, group: Group, plot: Plot, many: bool) -> None:
    """One reducer: line, markers and thin accuracy intervals, fainter where there are many reducers."""
    x, y, low, high = _coordinates(rows, group, plot)
    axes.errorbar(
        x, y, yerr=[y - low, high - y], fmt="none", ecolor=style.colour, elinewidth=0.6, alpha=0.3 if many else 0.6,
        zorder=3,
    )  # fmt: skip
    axes.plot(
        x, y, color=style.colour, linestyle=style.line, linewidth=0.8 if many else 1.0, marker=style.marker,
        markersize=(3.6 if many else 4.4) * style.size, markerfacecolor=style.colour if style.filled else "white",
        markeredgecolor=style.colour if not style.filled else "white", markeredgewidth=0.8 if not style.filled else 0.4,
        label=shorten(reducer_label(rows.reducer.iloc[0], rows.options.iloc[0]), 28), zorder=4,
    )  # fmt: skip


def _draw_unreduced(axes: Axes, rows: pd.DataFrame, group: Group, plot: Plot) -> None:
    for x, y, low, high in zip(*_coordinates(rows, group, plot), strict=True):
        axes.axhline(y, color=BASELINE_COLOUR, linestyle=(0, (4, 3)), linewidth=0.7, zorder=2)
        axes.errorbar(
            [x], [y], yerr=[[y - low], [high - y]], fmt="none", ecolor=BASELINE_COLOUR, elinewidth=0.6, zorder=5
        )
        axes.plot(
            [x], [y], linestyle=(0, (4, 3)), linewidth=0.7, marker="*", markersize=9, color=BASELINE_COLOUR,
            markeredgecolor="white", markeredgewidth=0.5, label=UNREDUCED, zorder=6,
        )  # fmt: skip


def _draw_frontier(axes: Axes, points: pd.DataFrame, group: Group, plot: Plot) -> None:
    """A wide, pale line under the points that no other point beats."""
    x, y, *_ = _coordinates(points, group, plot)
    best = frontier(list(zip(x, y, strict=True)), plot.fewer_is_better)
    axes.plot(
        *zip(*best, strict=True), color=FRONTIER_COLOUR, linewidth=5, alpha=0.6, solid_joinstyle="round",
        solid_capstyle="round", label=FRONTIER, zorder=1,
    )  # fmt: skip


def _place_legend(figure: Figure, axes: Axes, narrow: bool) -> None:
    """Outside the data: beside the axes, or below them in as many columns as fit; the figure grows for it."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: {UNREDUCED: 0, FRONTIER: 2}.get(labels[i], 1))
    entries = [handles[i] for i in order], [labels[i] for i in order]
    shared = {"frameon": False, "handlelength": 2.6, "handletextpad": 0.5, "labelspacing": 0.35}
    if not narrow:
        figure.set_figheight(max(figure.get_figheight(), 0.6 + 0.145 * len(labels)))
        figure.legend(*entries, loc="outside right upper", **shared)
        return
    narrower = shared | {"handlelength": 2.3, "columnspacing": 0.8, "borderaxespad": 0.3, "borderpad": 0.3}
    for columns in (4, 3, 2, 1):
        legend = figure.legend(*entries, loc="outside lower left", ncols=columns, **narrower)
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        legend.remove()


def _heading(group: Group, plot: Plot, left_off: dict[str, list[str]], characters: int) -> str:
    lines = [f"{group.task} · {group.model} · {images(group)}"]
    if plot is SPEED:
        lines.append(circumstances(group))
    else:
        lines[0] += f" · {group.precision}"
    lines += [f"{len(rows)} left off: {why}" for why, rows in left_off.items()]
    lines += [RANDOM_WEIGHTS] if group.random_weights else []
    return "\n".join(_wrap(line, characters) for line in lines)


def _wrap(line: str, characters: int) -> str:
    """The line broken between its items, which ' · ' separates."""
    lines = [""]
    for item in line.split(" · "):
        longer = f"{lines[-1]} · {item}" if lines[-1] else item
        if len(longer) <= characters or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(item)
    return "\n".join(lines)


def _series(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """The rows of each (reducer, options) by name: one with other options is another curve."""
    reduced = rows[rows.reducer != "none"]
    return dict(sorted((key, part) for key, part in reduced.groupby(["reducer", "options"])))


def _coordinates(rows: pd.DataFrame, group: Group, plot: Plot) -> tuple[pd.Series, ...]:
    """(x, score, low, high) of the rows by ascending x, scores in percent."""
    rows, score = rows.sort_values(plot.x, kind="stable"), _score(group)
    x, y, low, high = (rows[name] for name in (plot.x, score, f"{score}_low", f"{score}_high"))
    return x, 100 * y, 100 * low.clip(upper=y), 100 * high.clip(lower=y)  # rounding must not turn a bar over


def _score(group: Group) -> str:
    return "agreement" if group.random_weights else "top1"


def _score_label(group: Group, narrow: bool) -> str:
    if not group.random_weights:
        return "Top-1 accuracy (%)"
    return "Agreement with" + ("\n" if narrow else " ") + "unreduced model (%)"


def _slug(group: Group) -> str:
    parts = (group.task, group.model, group.weights, group.precision, f"b{group.batch_size}", group.image_size)
    return re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(str(part) for part in parts if part))
