"""How much faster one cell is than another, and how much more memory it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from suite.gate.side import Entry
from suite.measure.timing import interval_of

SAME = ("device", "batch_size", "precision", "runtime", "threads")
"""Circumstances of timing; speeds measured in others are not compared."""
TIMING = ("rounds", *SAME, "noisy")
"""What is used of a `SpeedResult`."""


@dataclass(frozen=True)
class SpeedRatio:
    """ratio: images/s of NEW to those of BASE, with its 95 % interval; None with a note that says why.

    noisy: the unreduced model against itself differed by so much that such ratios must not be ranked.
    """

    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    noisy: bool = False
    note: str = ""


def compare_speed(new: Entry, base: Entry, whole: bool = False) -> SpeedRatio:
    """Of the backbone, or of the whole model.

    Cells that were timed in the same rounds are compared round by round; others by their speed-ups over the unreduced
    model, each relative to its own rounds, so that a slower hour or machine load is not taken for a slower method.
    """
    first, second = (entry.whole_speed if whole else entry.speed for entry in (new, base))
    if not first or not second or not first.get("rounds") or not second.get("rounds"):
        return SpeedRatio(note="not timed")
    for name in SAME:
        if first.get(name) != second.get(name):
            return SpeedRatio(note=f"timed with {name.replace('_', ' ')} {first.get(name)} and {second.get(name)}")
    noisy = bool(first.get("noisy") or second.get("noisy"))
    if [r["baseline_im_s"] for r in first["rounds"]] == [r["baseline_im_s"] for r in second["rounds"]]:
        ratios = [a["im_s"] / b["im_s"] for a, b in zip(first["rounds"], second["rounds"], strict=True)]
        found = interval_of(ratios)
        return SpeedRatio(found.median, found.low, found.high, noisy)
    return _of_speedups(first["rounds"], second["rounds"], noisy)


def _of_speedups(first: list[dict[str, float]], second: list[dict[str, float]], noisy: bool) -> SpeedRatio:
    """Ratio of mean speed-ups on a logarithmic scale, with Welch's interval: the rounds of two runs are no pairs."""
    from scipy.stats import t

    means, errors, freedom = [], [], []
    for rounds in (first, second):
        logs = [math.log(r["im_s"] / r["baseline_im_s"]) for r in rounds]
        mean = sum(logs) / len(logs)
        means.append(mean)
        if len(logs) > 1:
            errors.append(sum((x - mean) ** 2 for x in logs) / (len(logs) - 1) / len(logs))
            freedom.append(len(logs) - 1)
    ratio = math.exp(means[0] - means[1])
    if len(errors) < 2:
        return SpeedRatio(ratio, noisy=noisy)
    spread = sum(errors)
    if spread == 0:
        return SpeedRatio(ratio, ratio, ratio, noisy)
    degrees = spread**2 / sum(e**2 / f for e, f in zip(errors, freedom))
    half = float(t.ppf(0.975, degrees)) * math.sqrt(spread)
    return SpeedRatio(ratio, ratio * math.exp(-half), ratio * math.exp(half), noisy)


def memory_change(new: Entry, base: Entry) -> float | None:
    """Peak memory of NEW relative to BASE's, less 1; None where one was not measured or they are not comparable."""
    if not (new.speed and new.memory_mib and base.speed and base.memory_mib):
        return None
    if any(new.speed.get(name) != base.speed.get(name) for name in SAME[:4]):
        return None
    return new.memory_mib / base.memory_mib - 1
