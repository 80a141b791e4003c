"""Pareto plots of a run: a score against FLOPs and against measured speed, as PNG, SVG and PDF.

matplotlib is imported when a plot is drawn and not before; figures are made without pyplot, so nothing global
changes and no display is needed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reports.frame import Group, groups
from reports.headings import RANDOM_WEIGHTS, circumstances, images
from reports.labels import End, label_ends, marker_of
from reports.points import PLOTS, Plot, frontier, plots_of, series_of, valid_points
from reports.style import BASELINE_COLOUR, FAMILIES, FRONTIER_COLOUR, OTHERS, UNTRAINED_LINE, Style, styles_for
from reports.text import is_untrained, reducer_label, shorten, training_mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNREDUCED, FRONTIER, UNTRAINED_SIGN = "unreduced", "frontier", "*"
MANY = 8  # curves, beyond which intervals would hide the points
FULL_WIDTH, COLUMN_WIDTH = 6.9, 3.3  # inches: a page's text and one of its two columns
# No date, no version, and ids from a fixed salt: the same frame gives the same bytes.
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
RC = {
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.titlesize": 7, "axes.labelsize": 7.5,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 6.5, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "svg.hashsalt": "reducerbench", "pdf.fonttype": 42, "text.parse_math": False,
}  # fmt: skip


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
    for number, plot in enumerate(PLOTS):
        for part in parts:
            plot = plots_of(part)[number]
            name = plot.name if len(parts) == 1 else f"{plot.name}-{_slug(part)}"
            points, left_off = valid_points(part, plot)
            said += [f"{name}: left off, {why}: {', '.join(rows)}" for why, rows in left_off.items()]
            if points.empty:
                said.append(f"{name}: not written, no finished cell has both {part.headline.name} and {plot.x}")
                continue
            files |= {f"{name}.{kind}": data for kind, data in _render(part, plot, width).items()}
        stale = [path for kind in METADATA for path in folder.glob(f"{plot.name}*.{kind}") if path.name not in files]
        for path in stale:
            path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files], said


def draw(group: Group, plot: Plot, width: float) -> Figure:
    """The plot as a figure of `width` inches: curves named at the ends where reduction is strongest, key below.

    Reducers with a point on the frontier are drawn stronger than the rest.
    """
    from matplotlib.figure import Figure

    points, left_off = valid_points(group, plot)
    series = series_of(points)
    styles = styles_for(list(series_of(group.frame)))
    narrow, many = width < 5, len(series) > MANY
    figure = Figure(figsize=(width, 2.4 if narrow else 3.4), layout="constrained")
    axes = figure.subplots()
    axes.grid(True, color="#EDEDED", linewidth=0.5)
    axes.set_axisbelow(True)
    best = _draw_frontier(axes, points, group, plot)
    ends = []
    for key, rows in series.items():
        x, y, *_ = coordinates = _coordinates(rows, group, plot)
        strong = not is_untrained(key[2]) and not best.isdisjoint(zip(x, y, strict=True))
        _draw_series(axes, coordinates, styles[key], strong, bars=not many)
        last = 0 if plot.fewer_is_better else -1
        ends.append(End(_curve_name(key, narrow), x.iloc[last], y.iloc[last], styles[key], strong))
    _draw_unreduced(axes, points[points.reducer == "none"], group, plot)
    axes.set_xlabel(plot.label)
    axes.set_ylabel(_score_label(group, narrow))
    axes.margins(x=0.04, y=0.06)
    remarks = [f"{len(rows)} left off: {why}" for why, rows in left_off.items()]
    remarks += ["untrained ones are not on the frontier"] if points.training.map(is_untrained).any() else []
    remarks += _intervals(points, group) if many else []
    remarks += _look_closer(axes, points, best, group)
    axes.set_title(_heading(group, plot, remarks, int((width - 0.6) * 72 / 3.9)), loc="left")
    _draw_key(figure, [styles[key] for key in series], narrow)
    label_ends(figure, axes, ends, left=plot.fewer_is_better, size=5.6 if narrow else 6.5)
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


def _draw_series(axes: Axes, coordinates: tuple[pd.Series, ...], style: Style, strong: bool, bars: bool) -> None:
    """One reducer's line and markers, paler if others beat it everywhere, and thin intervals."""
    x, y, low, high = coordinates
    alpha, order, width = (1.0, 4, 1.1) if strong else (0.6, 3, 0.7 if style.filled else 0.55)
    if bars:
        bar = {"ecolor": style.colour, "elinewidth": 0.6, "alpha": 0.6 * alpha}
        axes.errorbar(x, y, yerr=[y - low, high - y], fmt="none", zorder=order, **bar)
    look = {"color": style.colour, "linestyle": style.line, "linewidth": width, "alpha": alpha, "label": "_curve"}
    axes.plot(x, y, **look, **marker_of(style, 4.2 if strong else 3.4), zorder=order)


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


def _draw_frontier(axes: Axes, points: pd.DataFrame, group: Group, plot: Plot) -> set[tuple[float, float]]:
    """A wide, pale line under the points that no other point beats; returns these points.

    The scores of untrained methods are not theirs, so these neither beat others nor are on the line.
    """
    fair = points[~points.training.map(is_untrained)]
    x, y, *_ = _coordinates(fair if len(fair) else points, group, plot)
    best = frontier(list(zip(x, y, strict=True)), plot.fewer_is_better)
    line = {"color": FRONTIER_COLOUR, "linewidth": 5, "alpha": 0.6, "label": FRONTIER, "zorder": 1}
    axes.plot(*zip(*best, strict=True), solid_joinstyle="round", solid_capstyle="round", **line)
    return set(best)


def _intervals(points: pd.DataFrame, group: Group) -> list[str]:
    """In words what bars around many curves' points would hide."""
    score, scale = group.headline.name, group.headline.scale
    return [f"95 % intervals ± {scale / 2 * (points[f'{score}_high'] - points[f'{score}_low']).median():.1f} (median)"]


def _look_closer(axes: Axes, points: pd.DataFrame, best: set[tuple[float, float]], group: Group) -> list[str]:
    """Cut off what lies far below the rest and the frontier `best`, so that these can be told apart, and say so."""
    scores = group.headline.scale * points[group.headline.name]
    top = scores.max()
    reach = max(2.5 * (top - scores.median()), 1.15 * (top - min(y for _, y in best)) + 1)
    if scores.min() >= top - reach:
        return []
    foot, top = scores[scores >= top - reach].min(), axes.dataLim.y1
    margin = 0.04 * (top - foot) or 0.5
    axes.set_ylim(foot - margin, top + margin)
    return ["↓ ends below the axis"]


def _draw_key(figure: Figure, styles: list[Style], narrow: bool) -> None:
    """What the star, the hues and hollow markers mean, below the axes in as few rows as fit."""
    from matplotlib.lines import Line2D

    star = {"marker": "*", "markersize": 7, "markeredgecolor": "white", "markeredgewidth": 0.4, "linewidth": 0.7}
    entries = {
        UNREDUCED: Line2D([], [], color=BASELINE_COLOUR, linestyle=(0, (4, 3)), **star),
        FRONTIER: Line2D([], [], color=FRONTIER_COLOUR, linewidth=4, alpha=0.6, solid_capstyle="butt"),
    }
    families = [family for family in (*FAMILIES, OTHERS) if any(style.family == family.name for style in styles)]
    entries |= {family.name: Line2D([], [], color=family.shades[0], linewidth=2.2) for family in families}
    hollow = [style for style in styles if not style.filled]
    if hollow:
        look = marker_of(replace(hollow[0], colour="#555555", marker="o"), 3.6)
        name = f"{UNTRAINED_SIGN} untrained" if narrow else "untrained"
        entries[name] = Line2D([], [], color="#555555", linestyle=UNTRAINED_LINE, linewidth=0.8, **look)
    shape = {"frameon": False, "handlelength": 1.5, "handletextpad": 0.5, "labelspacing": 0.3, "columnspacing": 1.1}
    for rows in range(1, len(entries) + 1):
        columns = -(-len(entries) // rows)
        legend = figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, **shape)
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        legend.remove()


def _heading(group: Group, plot: Plot, remarks: list[str], characters: int) -> str:
    lines = [f"{group.task} · {group.model} · {images(group)}"]
    if not plot.fewer_is_better:
        lines.append(circumstances(group, plot.whole))
    else:
        lines[0] += f" · {group.precision}"
    lines += [RANDOM_WEIGHTS] if group.random_weights else []
    lines += [" · ".join(remarks)] if remarks else []
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


def _curve_name(key: tuple[str, str, str], narrow: bool) -> str:
    reducer, options, training = key
    if narrow:
        return shorten(reducer_label(reducer, options), 20) + (UNTRAINED_SIGN if is_untrained(training) else "")
    return shorten(reducer_label(reducer, options, training_mark(training, short=True)), 36)


def _coordinates(rows: pd.DataFrame, group: Group, plot: Plot) -> tuple[pd.Series, ...]:
    """(x, score, low, high) of the rows by ascending x, scores as people read them."""
    rows, score, scale = rows.sort_values(plot.x, kind="stable"), group.headline.name, group.headline.scale
    x, y, low, high = (rows[name] for name in (plot.x, score, f"{score}_low", f"{score}_high"))
    low, high = low.fillna(y).clip(upper=y), high.fillna(y).clip(lower=y)  # rounding must not turn a bar over
    return x, scale * y, scale * low, scale * high


def _score_label(group: Group, narrow: bool) -> str:
    if not group.random_weights:
        return group.headline.label
    return "Agreement with" + ("\n" if narrow else " ") + "unreduced model (%)"


def _slug(group: Group) -> str:
    parts = (group.task, group.model, group.weights, group.precision, f"b{group.batch_size}", group.image_size)
    return re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(str(part) for part in parts if part))
