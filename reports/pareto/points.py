"""What stands on a Pareto plot: which rows, grouped into which curves, and which of them no other one beats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from reports.groups import Group
from reports.order import method_order
from reports.text.wording import row_label
from suite.contract.baseline import BASELINE


@dataclass(frozen=True)
class Plot:
    """One kind of Pareto plot: the column on its x-axis, which end is better, and whether it is the whole model's."""

    name: str
    x: str
    label: str
    fewer_is_better: bool
    whole: bool = False

    @property
    def timed(self) -> bool:
        """Whether x was measured on a device, beside the unreduced model, and not counted."""
        return self.x != FLOPS.x

    @property
    def is_speed(self) -> bool:
        """Whether x has an interval over rounds, and the unreduced model's spread against itself to be judged by."""
        return self.x in (SPEED.x, WHOLE)


FLOPS = Plot("pareto_flops", "gmacs", "GFLOPs (multiply-adds) per image", fewer_is_better=True)
SPEED = Plot("pareto_speed", "im_s", "Images per second", fewer_is_better=False)
MEMORY = Plot("pareto_memory", "peak_memory_mib", "Peak memory of a batch (MiB)", fewer_is_better=True)
WHOLE = "whole_s"
PLOTS = (FLOPS, SPEED, MEMORY)
PART_SPEED = replace(SPEED, name="pareto_speed_encoder")


def plots_of(group: Group) -> tuple[Plot, Plot, Plot]:
    """Cost, speed and memory. Where a model is more than its backbone, only the speed is the whole's."""
    if not group.shown.throughput:
        return PLOTS
    name = group.shown.throughput
    speed = replace(SPEED, whole=True, x=WHOLE, label=f"{name[0].upper()}{name[1:]}")
    memory = replace(MEMORY, label=f"Peak memory of a batch in the {group.shown.part} (MiB)")
    return replace(FLOPS, label=f"{group.shown.part.capitalize()} {FLOPS.label}"), speed, memory


def timed_plot(group: Group) -> Plot:
    """The speed of what is timed under every runtime: the model, or its backbone where there is more to it."""
    if not group.shown.throughput:
        return SPEED
    return replace(PART_SPEED, label=f"Images per second through the {group.shown.part}")


def valid_points(group: Group, plot: Plot) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """(the finished rows that belong on the plot, {why: rows that were measured but do not})."""
    frame = group.frame[group.frame.status == "done"]
    frame = frame[frame[group.headline.name].notna() & frame[plot.x].notna()]
    if not plot.timed:
        why, out = "FLOPs disputed", frame.disputed.astype(bool)
    else:
        size = "whole_timed_batch_size" if plot.whole else "timed_batch_size"
        timed = pd.Series([c.get(size) for c in group.context], group.frame.index)[frame.index]
        usual = timed[frame.reducer == BASELINE].to_list() or timed.mode().to_list() or [None]
        why, out = "timed at another batch size", timed.notna() & (timed != usual[0])
    rows = [row_label(row) for row in frame[out].itertuples()]
    return frame[~out], {why: rows} if rows else {}


def is_noisy(group: Group, plot: Plot) -> bool:
    """Whether the unreduced model against itself says that these speeds must not be ranked."""
    return plot.is_speed and True in group.seen("noisy", plot.whole)


def bounds(rows: pd.DataFrame, plot: Plot) -> tuple[pd.Series, pd.Series]:
    """(low, high) of x: a speed's 95 % interval over the rounds; what is counted has none."""
    x = rows[plot.x]
    if not plot.is_speed:
        return x, x
    return rows[f"{plot.x}_low"].fillna(x).clip(upper=x), rows[f"{plot.x}_high"].fillna(x).clip(lower=x)


def frontier(
    points: list[tuple[float, float]], fewer_is_better: bool, ends: Iterable[tuple[float, float]] | None = None
) -> list[tuple[float, float]]:
    """The points (x, score) that surely no other one beats, by ascending x.

    One beats another if its score is no lower and its x no worse. Where the intervals of x (`ends`: low and high of
    every point) leave that open, it might: what cannot be told apart is on no frontier.
    """
    sign = 1 if fewer_is_better else -1
    spans = [sorted((sign * low, sign * high)) for low, high in ends or ((x, x) for x, _ in points)]
    kept = set()
    for point, (_, worst) in zip(points, spans, strict=True):
        rivals = (best for other, (best, _) in zip(points, spans) if other != point and other[1] >= point[1])
        if all(best > worst for best in rivals):
            kept.add(point)
    return sorted(kept)


def along(rows: pd.DataFrame, plot: Plot) -> pd.DataFrame:
    """The rows in the order that a curve joins them: by the axis; by cost where memory hardly moves."""
    return rows.sort_values("gmacs" if plot.x == MEMORY.x else plot.x, kind="stable")


def series_of(rows: pd.DataFrame) -> dict[tuple[str, str, str], pd.DataFrame]:
    """The rows of each (reducer, options, training), in the tables' order: other options or weights, another curve."""
    reduced = rows[rows.reducer != BASELINE]
    parts = dict(list(reduced.groupby(["reducer", "options", "training"])))
    return {key: parts[key] for key in sorted(parts, key=lambda key: method_order(*key))}
