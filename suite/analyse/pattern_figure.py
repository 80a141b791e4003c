"""The figure of how alike methods are: two matrices, and similarity beside the difference in score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reports.pareto.plots import FULL_WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MATRICES = {"adjusted": "Groups: adjusted mutual information", "overlap": "Alone: intersection over union"}
POINTS = {"adjusted": ("#0072B2", "o"), "overlap": ("#E08A00", "s")}


def draw_patterns(
    labels: Sequence[str], matrices: Mapping[str, np.ndarray], scores: np.ndarray,
    tests: Mapping[str, tuple[float, float]], title: str, metric: str,
) -> Figure:  # fmt: skip
    """matrices: (m, m) by name, those of MATRICES; scores (m,) as people read them; tests: correlation and p-value."""
    from matplotlib.figure import Figure

    side = 0.9 + 0.19 * len(labels)
    figure = Figure(figsize=(FULL_WIDTH, side + 2.1), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(side, 1.7))
    for place, (name, said) in enumerate(MATRICES.items()):
        axes = figure.add_subplot(grid[0, place])
        _matrix(axes, labels, matrices[name], said, rows=place == 0)
    _scatter(figure.add_subplot(grid[1, :]), matrices, scores, tests, metric)
    figure.suptitle(title, fontsize=7, x=0.02, ha="left")
    return figure


def _matrix(axes: Axes, labels: Sequence[str], matrix: np.ndarray, said: str, rows: bool) -> None:
    shown = np.ma.masked_invalid(matrix)
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=90, fontsize=5)
    axes.set_yticks(places, labels if rows else [""] * len(labels), fontsize=5)
    axes.tick_params(length=0)
    axes.set_title(said, loc="left", fontsize=7)
    for i in places:
        for j in places:
            if i != j and len(labels) <= 24:
                text = "n/a" if np.isnan(matrix[i, j]) else str(round(100 * matrix[i, j]))
                colour = "white" if not np.isnan(matrix[i, j]) and matrix[i, j] > 0.6 else "#333333"
                axes.text(j, i, text, ha="center", va="center", fontsize=4.5, color=colour)


def _scatter(
    axes: Axes, matrices: Mapping[str, np.ndarray], scores: np.ndarray, tests: Mapping[str, tuple[float, float]],
    metric: str,
) -> None:  # fmt: skip
    first, second = np.triu_indices(len(scores), k=1)
    apart = np.abs(scores[first] - scores[second])
    for name, (colour, marker) in POINTS.items():
        rho, p = tests[name]
        said = "n/a" if np.isnan(rho) else f"Spearman {rho:.2f}, p = {p:.3f}".replace("-", "−")
        label = f"{MATRICES[name].split(':')[0]}: {said}"
        axes.scatter(matrices[name][first, second], apart, s=8, color=colour, marker=marker, alpha=0.7, label=label)
    axes.set_xlabel("Similarity of a pair, mean over blocks and images")
    axes.set_ylabel(f"Difference in {metric}")
    axes.set_ylim(bottom=0)
    axes.grid(True, color="#EDEDED", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=6)
