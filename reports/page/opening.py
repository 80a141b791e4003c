"""What a page says first, in words: which method keeps most at one cost, which cannot be told from it, and what the
samples can tell at all. Every clause follows from the statistics of the page's comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.groups import Group
from reports.page.outcomes import Outcomes
from reports.page.pairs import LEVEL, Pairs
from reports.pareto.points import is_noisy, plots_of
from reports.speeds import INTERVAL
from reports.text.wording import is_untrained, percent, ratio, reducer_label, significant, training_mark
from suite.contract.baseline import BASELINE
from suite.stats import holm, smallest_normal_difference

USUAL = -0.35  # change of FLOPs near which methods are described, where several are at one rate
NAMED = 4  # methods in a list of names; of more, how many there are
HALVES = 2 * 1.959964  # standard errors in a 95 % interval
Difference = tuple[float, float, float, float]
"""A score less another, as people read scores: value, low, high, p."""


@dataclass(frozen=True)
class Compared:
    """Finished cells of a group, with all pairs of them: `pairs` are those of `outcomes`, which may hold more cells."""

    part: Group
    outcomes: Outcomes
    pairs: Pairs

    def difference(self, a: str, b: str) -> Difference:
        """Of b's score less a's."""
        count, place = len(self.outcomes.keys), self.outcomes.keys.index
        (first, second), sign = sorted((place(a), place(b))), 1 if place(a) < place(b) else -1
        number = first * count - first * (first + 1) // 2 + second - first - 1
        scale, of = self.outcomes.metric.scale, self.pairs
        low, high = sorted(sign * scale * float(ends[number]) for ends in (of.low, of.high))
        return scale * float(of.value[place(b)] - of.value[place(a)]), low, high, float(of.p[number])

    def score(self, key: str) -> float:
        return self.outcomes.metric.scale * float(self.pairs.value[self.outcomes.keys.index(key)])


def opening_of(compared: Compared) -> list[str]:
    """Sentences on a group; none where no two methods with what they need were finished at one rate."""
    found = compared.part.frame.loc[[key for key in compared.outcomes.keys if key in compared.part.frame.index]]
    level = _level(found)
    if level is None:
        return []
    unreduced = next(iter(found.index[found.reducer == BASELINE]), None)
    best, *others = sorted(level.index, key=compared.score, reverse=compared.outcomes.metric.sign > 0)
    differences = {key: compared.difference(best, key) for key in others}
    adjusted = holm([p for *_, p in differences.values()])
    worse = [key for key, p in zip(others, adjusted, strict=True) if p <= 1 - LEVEL]
    alike = [key for key in others if key not in worse]
    return [
        _best(compared, level, best, unreduced),
        *([f"{_listed([_name(level.loc[key]) for key in alike])} cannot be told from it."] if alike else []),
        *_worse(level, {key: differences[key][0] for key in worse}),
        *_paces(compared.part, level),
        *_resolution(compared, [differences[key] for key in alike or others]),
    ]


def _level(found: pd.DataFrame) -> pd.DataFrame | None:
    """The methods at the rate that most have, of several the one nearest to `USUAL`; None for fewer than two.

    Those that lack what they have to learn are left out.
    """
    reduced = found[
        (found.reducer != BASELINE) & found.reduction.notna() & ~found.training.map(is_untrained).astype(bool)
    ]
    if reduced.empty:
        return None
    by_rate = reduced.groupby("rate", sort=False)
    about = pd.DataFrame({"methods": by_rate.size(), "off": (by_rate.reduction.median() - USUAL).abs()})
    rate = about.sort_values(["methods", "off"], ascending=[False, True], kind="stable").index[0]
    level: pd.DataFrame = reduced[reduced.rate == rate]
    return level if len(level) > 1 else None


def _name(row: Any) -> str:
    return reducer_label(row.reducer, row.options, training_mark(row.training, short=True))


def _best(compared: Compared, level: pd.DataFrame, best: str, unreduced: str | None) -> str:
    part, metric = compared.part, compared.outcomes.metric
    lowest, highest = percent(level.reduction.min(), 0), percent(level.reduction.max(), 0)
    cost = f"{highest} %" if lowest == highest else f"{lowest} to {highest} %"
    name, value = _name(level.loc[best]), significant(compared.score(best), 3)
    where = f"On {part.model} and {len(compared.outcomes.ids)} samples of {part.task}, at {cost} FLOPs"
    said = f"{where}, {name} does best of {len(level)} methods: {metric.label} {value}"
    if unreduced is None:
        return f"{said}."
    difference, low, high, _ = compared.difference(unreduced, best)
    plain = f"unreduced {significant(compared.score(unreduced), 3)}"
    return f"{said}, {plain}, difference {_signed(difference)} [{_signed(low)}, {_signed(high)}]."


def _worse(level: pd.DataFrame, differences: Mapping[str, float]) -> list[str]:
    """Those of which Holm's procedure over all that were compared with the best says so, the least far first."""
    said = [f"{_name(level.loc[key])} ({_signed(difference)})" for key, difference in differences.items()]
    if len(said) < 2:
        return [f"{one} is worse." for one in said]
    return [f"{len(said)} are worse, from {said[0]} to {said[-1]}."]


def _paces(part: Group, level: pd.DataFrame) -> list[str]:
    """Which is fastest in time, and which gain nothing; not where speeds must not be ranked."""
    whole = bool(part.shown.throughput)
    pace = "whole_speedup" if whole else "speedup"
    timed = level[level[pace].notna()]
    if timed.empty:
        return []
    if is_noisy(part, plots_of(part)[1]):
        low, high = min(part.seen("aa_low", whole)), max(part.seen("aa_high", whole))
        return [
            f"Speeds of this run must not be ranked: beside itself, the unreduced model had {low:.2f} to {high:.2f}."
        ]
    fastest = timed.loc[timed[pace].idxmax()]
    times = ratio(*(fastest[pace + end] for end in INTERVAL))
    said = [f"{_name(fastest)} is fastest: {times} times as fast as unreduced."]
    slow = [_name(timed.loc[key]) for key in timed.index if timed[f"{pace}_low"][key] <= 1]
    if slow:
        said.append(f"Not surely faster than unreduced: {_listed(slow)}.")
    return said


def _resolution(compared: Compared, differences: Sequence[Difference]) -> list[str]:
    """What a comparison as close as these finds in four of five cases, from how wide their intervals are."""
    widths = pd.Series([high - low for _, low, high, _ in differences]).dropna()
    if widths.empty or not widths.median() > 0:
        return []
    least = significant(smallest_normal_difference(float(widths.median()) / HALVES, 1 - LEVEL), 2)
    n = len(compared.outcomes.ids)
    return [f"With {n} samples, a difference from it below {least} points is missed one time in five or more."]


def _signed(value: float) -> str:
    text = significant(abs(value), 2)
    return text if text == "0" else f"{'−' if value < 0 else '+'}{text}"


def _listed(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and 7 more'."""
    shown, more = list(names[:NAMED]), len(names) - NAMED
    if more > 0:
        shown.append(f"{more} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
