"""The stored fit: its parameters, every published speed beside its prediction, and the error bands that follow."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from suite.measure.prediction.cost import Reach

FILE = Path(__file__).with_name("fitted.json")
FITTED, HELD_OUT, MERGER = "fitted", "held out", "merger"
"""What a published speed is to the fit. A merger's authors launch other kernels than we do: none is fitted."""
COVERED = 0.8  # of the errors a band holds
ENOUGH = 5  # errors of a GPU, from which on its band is its own


@dataclass(frozen=True)
class Band:
    """A prediction may be too high or too low by this factor. errors: of how many speeds, and of: of which GPUs.

    checked: speeds of this GPU are published, with which predictions were compared.
    """

    factor: float
    errors: int
    of: str
    checked: bool


@dataclass(frozen=True)
class Fit:
    """date: when it was made. reach: its parameters. rows: one a published speed, by `suite.analyse.prediction.fit`."""

    date: str
    reach: Reach
    rows: list[dict[str, Any]]

    def is_checked(self, gpu: str, units: str) -> bool:
        """Whether a speed of the GPU by such units (see `Gpu.units`), tensor cores or ordinary ones, is published."""
        return any(row["gpu"] == gpu and bool(row["units"]) == bool(units) for row in self.rows)

    def speed_band(self, gpu: str, units: str) -> Band:
        """Of images/s, from speeds of unreduced models and pruners."""
        alike = [row for row in self.rows if row["part"] != MERGER]
        held_out = [row for row in alike if row["part"] == HELD_OUT]
        new, unseen = errors(held_out, "published", "predicted"), errors(alike, "published", "unseen")
        return own_or_all(new, gpu) if self.is_checked(gpu, units) else unchecked(new, unseen)

    def speedup_band(self, gpu: str, units: str) -> Band:
        """Of speed-ups, from all that were not fitted, mergers among them."""
        rows = [row for row in self.rows if row["part"] != FITTED]
        new, unseen = (errors(rows, "published_speedup", f"{which}_speedup") for which in ("predicted", "unseen"))
        return own_or_all(new, gpu) if self.is_checked(gpu, units) else unchecked(new, unseen)


Errors = list[tuple[str, float]]
"""(GPU, log of predicted over published) of each speed."""


def errors(rows: Iterable[Mapping[str, Any]], published: str, predicted: str) -> Errors:
    """Of the rows that have both."""
    pairs = [(row["gpu"], row[published], row[predicted]) for row in rows]
    return [(gpu, math.log(b / a)) for gpu, a, b in pairs if a is not None and b is not None]


def own_or_all(found: Errors, gpu: str) -> Band:
    """The band of a GPU from its own errors, or where those are too few, from all."""
    own = [error for error in found if error[0] == gpu]
    if len(own) >= ENOUGH:
        return band_of(own, "of this GPU", True)
    return band_of(found, "of all GPUs", True)


def unchecked(new: Errors, unseen: Errors) -> Band:
    """The band of a GPU without a speed: from what others come to when they are left out of the fit, and no less than
    what all come to when they are in it."""
    of = "of other GPUs, each left out of the fit"
    return max(band_of(new, "of all GPUs", False), band_of(unseen, of, False), key=lambda band: band.factor)


def band_of(found: Errors, of: str, checked: bool) -> Band:
    """The least factor that holds so much of the errors, where each GPU weighs alike: most speeds are of one."""
    speeds, held = Counter(gpu for gpu, _ in found), 0.0
    for gpu, error in sorted(found, key=lambda one: abs(one[1])):
        held += 1 / (speeds[gpu] * len(speeds))
        if held >= COVERED - 1e-9:
            return Band(math.exp(abs(error)), len(found), of, checked)
    raise ValueError("no errors, no band")


@cache
def load_fit() -> Fit:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    return Fit(stored["date"], Reach(**stored["reach"]), stored["rows"])
