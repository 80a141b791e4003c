"""Whether a measured figure is the published one, and if that cannot be said, why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

REPRODUCED, DIFFERS, NOT_COMPARABLE, NO_DATA = "reproduced", "differs", "not comparable", "n/a"
COST_TOLERANCE = 0.02
UNREDUCED_TOLERANCE, REDUCED_TOLERANCE = 0.1, 0.2  # points of accuracy: resizing and releases of libraries
FULL_SETS = {"ImageNet-1k": 50_000, "ADE20K": 2_000}


@dataclass(frozen=True)
class Verdict:
    """word: one of the four above. why: of the last two, and what a reader must know of the others."""

    word: str
    why: str = ""


@dataclass(frozen=True)
class Score:
    """A measured score and its 95 % interval, in percent, on `samples` of the data; what it was measured with.

    random: the weights are. method_trained: the method was given what was trained with it. untrained: what it lacks.
    """

    value: float
    low: float
    high: float
    samples: int
    random: bool
    method_trained: bool
    untrained: str = ""


def cost_verdict(measured: float | None, published: float, printed: str, why: str = "") -> Verdict:
    """Reproduced: within 2 % of the printed figure, or within its rounding, whichever is wider. Any one unit."""
    if published != published:
        return Verdict(NO_DATA, "no GFLOPs are printed")
    if measured is None:
        return Verdict(NO_DATA, why)
    allowed = max(COST_TOLERANCE * published, rounding(printed))
    return Verdict(REPRODUCED if abs(measured - published) <= allowed * (1 + 1e-9) else DIFFERS)


def rounding(printed: str) -> float:
    """Half a unit of the last printed digit: 0.05 of '4.6', 0.5 of '33'."""
    decimals = len(printed.partition(".")[2])
    return 0.5 * 10**-decimals


def score_verdict(score: Score | None, published: float, row: Any, trained: bool, reduced: bool) -> Verdict:
    """Reproduced: within 0.1 points (0.2 of a reduced model) of the printed score, or of the measured interval.

    row: dataset, training and note as published. trained: its weights were updated for the row.
    """
    if published != published:
        return Verdict(NO_DATA, "no score is printed")
    if score is None:
        return Verdict(NO_DATA)
    full = FULL_SETS.get(row.dataset)
    if score.random:
        return Verdict(NOT_COMPARABLE, "random weights")
    if trained and not score.method_trained:
        return Verdict(NOT_COMPARABLE, f"published after training ({row.training or 'not said how'}); none here")
    if score.untrained:
        return Verdict(NOT_COMPARABLE, score.untrained)
    if "trained by ToMe authors" in row.note:
        return Verdict(NOT_COMPARABLE, "published of a model that the authors trained themselves")
    if full and score.samples != full:
        return Verdict(NOT_COMPARABLE, f"measured on {score.samples:,} of {full:,} images")
    tolerance = REDUCED_TOLERANCE if reduced else UNREDUCED_TOLERANCE
    low, high = min(score.low, score.value) - tolerance, max(score.high, score.value) + tolerance
    return Verdict(REPRODUCED if low <= published <= high else DIFFERS)
