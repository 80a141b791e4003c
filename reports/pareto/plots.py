"""The Pareto plot of one model: a score against FLOPs, measured speed or memory, as PNG, SVG and PDF.

matplotlib is imported when a plot is drawn and not before; figures are made without pyplot, so nothing global
changes and no display is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from reports.groups import Group
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
from reports.pareto.points import Plot, is_noisy, series_of, valid_points
from reports.pareto.style import styles_for
from reports.text.headings import RANDOM_WEIGHTS, circumstances, images
from reports.text.wording import is_untrained
from suite.contract.baseline import BASELINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MANY = 8  # curves, beyond which intervals are pale so as not to hide the points
FULL_WIDTH, COLUMN_WIDTH = 6.9, 3.3  # inches: a page's text, and one of its two columns
NARROW = 5.0  # inches, below which names are short
# No date, no version, and ids from a fixed salt: the same frame gives the same bytes.
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
RC: dict[Any, Any] = {  # matplotlib has a type of all names
    "font.family": "DejaVu Sans", "font.size": 7.5, "axes.titlesize": 7, "axes.labelsize": 7.5,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 6.5, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "svg.hashsalt": "reducerbench", "pdf.fonttype": 42, "text.parse_math": False,
}  # fmt: skip


def draw(group: Group, plot: Plot, width: float) -> Figure:
    """The plot as a figure of `width` inches: curves named at the ends where reduction is strongest, key below.

    Reducers with a point on the frontier are drawn stronger than the rest.
    """
    points, left_off = valid_points(group, plot)
    series = series_of(points)
    styles = styles_for(list(series_of(group.frame)))
    narrow, many = width < NARROW, len(series) > MANY
    figure, axes = canvas(width)
    noisy, reach, ends = is_noisy(group, plot), reach_of(points, plot), []
    dotted: dict[str, Line2D] = {}
    best = set() if noisy else draw_frontier(axes, points, group, plot)
    for key, rows in series.items():
        placed = coordinates(rows, group, plot, reach)
        strong = not is_untrained(key[2]) and not best.isdisjoint(placed.points)
        draw_series(axes, placed, styles[key], strong, many)
        dotted |= draw_oracle(axes, rows, styles[key], group, plot) if strong else {}
        x, y = placed.points[0 if plot.fewer_is_better else -1]
        ends.append(End(curve_name(key, narrow, series), x, y, styles[key], strong))
    draw_unreduced(axes, coordinates(points[points.reducer == BASELINE], group, plot, reach))
    crosses = draw_dominated(axes, points, group, plot)
    axes.set_xlabel(plot.label)
    axes.set_ylabel(score_label(group, narrow))
    axes.margins(x=0.04, y=0.06)
    remarks = said_of_speed(points, plot, noisy, best)
    remarks += [f"{len(rows)} left off: {why}" for why, rows in left_off.items()]
    remarks += ["untrained ones are not on the frontier"] if points.training.map(is_untrained).any() and best else []
    remarks += look_closer(axes, points, best, group)
    axes.set_title(_heading(group, plot, remarks, characters(width)), loc="left")
    draw_key(figure, [styles[key] for key in series], narrow, bool(best), crosses | dotted)
    label_ends(figure, axes, ends, left=plot.fewer_is_better, size=5.6 if narrow else 6.5)
    return figure


def canvas(width: float) -> tuple[Figure, Axes]:
    """An empty figure, `width` inches wide, with a pale grid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 2.4 if width < NARROW else 3.4), layout="constrained")
    axes = figure.subplots()
    axes.grid(True, color="#EDEDED", linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def characters(width: float) -> int:
    """How many of a heading fit above a figure `width` inches wide."""
    return int((width - 0.6) * 72 / 3.9)


def rendered(make: Callable[[], Figure]) -> dict[str, bytes]:
    """The files of a figure that `make` draws: {kind: bytes}. The same drawing gives the same bytes."""
    from matplotlib import rc_context

    files = {}
    with rc_context(RC):
        figure = make()
        for kind, metadata in METADATA.items():
            buffer = BytesIO()
            figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
            files[kind] = buffer.getvalue()
    return files


def _heading(group: Group, plot: Plot, remarks: list[str], characters: int) -> str:
    lines = [f"{group.task} · {group.model} · {images(group)}"]
    if plot.timed:
        lines.append(circumstances(group, plot.whole))
    else:
        lines[0] += f" · {group.precision}"
    lines += [RANDOM_WEIGHTS] if group.random_weights else []
    lines += [" · ".join(remarks)] if remarks else []
    return "\n".join(wrap(line, characters) for line in lines)
