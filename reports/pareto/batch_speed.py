"""From which batch size on a method pays: what intervals of its speed-up at several sizes decide, and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.pareto.labels import End, label_ends, marker_of
from reports.pareto.plots import COLUMN_WIDTH, canvas
from reports.pareto.style import BASELINE_COLOUR, Style, styles_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SpeedUp:
    """Speed-up over the unreduced model at one batch size, with its 95 % interval; None where there is none.

    noisy: the unreduced model against itself says that the speeds of this size must not be ranked.
    """

    batch: int
    value: float | None
    low: float | None
    high: float | None
    noisy: bool = False

    @property
    def pays(self) -> bool | None:
        """Whether the method is faster; None where the interval or noise leaves it open, or there is none."""
        if self.low is None or self.high is None or self.noisy:
            return None
        return True if self.low > 1 else False if self.high < 1 else None


@dataclass(frozen=True)
class BreakEven:
    """batch: the smallest size from which on the method is faster at all that were measured; None: there is none."""

    batch: int | None
    text: str


def break_even(points: Sequence[SpeedUp]) -> BreakEven:
    """What the speed-ups of one method decide.

    At the least batch of an unbroken row of certain speed-ups up to the largest batch that was measured, the method
    breaks even. Sizes below it that noise leaves open are named, and what is open at the largest is not decided.
    """
    known = sorted((point for point in points if point.value is not None), key=lambda point: point.batch)
    if not known:
        return BreakEven(None, "n/a")
    paying: list[int] = []
    for point in reversed(known):
        if point.pays is not True:
            break
        paying.insert(0, point.batch)
    if paying:
        below = known[: len(known) - len(paying)]
        unclear: list[int] = []
        for point in reversed(below):
            if point.pays is False:
                break
            unclear.insert(0, point.batch)
        doubt = f" (noise at {', '.join(map(str, unclear))})" if unclear else ""
        return BreakEven(paying[0], f"{paying[0]}{doubt}")
    if known[-1].pays is None:
        return BreakEven(None, f"not decided: noise at {known[-1].batch}")
    between = [point.batch for point in known if point.pays]
    span = str(known[0].batch) if len(known) == 1 else f"{known[0].batch}–{known[-1].batch}"
    only = f", but at {', '.join(map(str, between))}" if between else ""
    return BreakEven(None, f"not at {known[-1].batch}{only}" if between else f"never within {span}")


def draw_batch_speed(curves: Mapping[str, Sequence[SpeedUp]], reducers: Mapping[str, str], title: str) -> Figure:
    """Speed-up over batch size, one curve a method, a ring where it breaks even; one column of a page wide.

    curves: name -> its speed-ups; reducers: name -> the reducer whose look it has.
    """
    figure, axes = canvas(COLUMN_WIDTH)
    batches = sorted({point.batch for points in curves.values() for point in points})
    keys = {name: (reducers[name], str(i), "") for i, name in enumerate(curves)}
    styles, ends = styles_for(list(keys.values())), []
    axes.axhline(1, color=BASELINE_COLOUR, linestyle=(0, (4, 3)), linewidth=0.7, zorder=2)
    for name, points in curves.items():
        points = sorted(points, key=lambda point: point.batch)
        known = [(batches.index(p.batch), p.value) for p in points if p.value is not None]
        if not known:
            continue
        style = styles[keys[name]]
        x, y = [at for at, _ in known], [value for _, value in known]
        sure = [
            (batches.index(p.batch), p.value, p.low, p.high)
            for p in points
            if p.value is not None and p.low is not None and p.high is not None
        ]
        bars = [[value - low for _, value, low, _ in sure], [high - value for _, value, _, high in sure]]
        axes.errorbar(
            [at for at, *_ in sure], [value for _, value, *_ in sure], yerr=bars, fmt="none", ecolor=style.colour,
            elinewidth=0.6, alpha=0.6, zorder=3,
        )  # fmt: skip
        axes.plot(
            x, y, color=style.colour, linestyle=style.line, linewidth=1.0, **marker_of(style, 3.8), label="_curve",
            zorder=4,
        )  # fmt: skip
        if (batch := break_even(points).batch) is not None:
            at = batches.index(batch)
            _ring(axes, at, y[x.index(at)], style)
        ends.append(End(name, x[-1], y[-1], style, strong=False))
    axes.set_xlabel("Batch size")
    axes.set_ylabel("Speed-up (unreduced = 1)")
    axes.margins(x=0.05, y=0.08)
    noisy = sorted({point.batch for points in curves.values() for point in points if point.noisy})
    warning = f"\nNoisy, decide nothing at {', '.join(map(str, noisy))}" if noisy else ""
    axes.set_title(title + warning, loc="left")
    label_ends(figure, axes, ends, left=False, size=5.6)
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    return figure


def _ring(axes: Axes, x: float, y: float, style: Style) -> None:
    axes.plot(
        [x], [y], marker="o", linestyle="none", label="_pays", zorder=5, markeredgecolor=style.colour,
        markerfacecolor="none", markeredgewidth=0.8, markersize=8,
    )  # fmt: skip
