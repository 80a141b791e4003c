"""A mean over images, how far other images could move it, and how far other seeds did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from reports.text.wording import NO_DATA
from suite.stats import mean_interval, wilson_interval


@dataclass(frozen=True)
class Estimate:
    """low, high: 95 % interval over images. least, largest: of single seeds; None where there is but one."""

    value: float
    low: float
    high: float
    images: int
    least: float | None = None
    largest: float | None = None


def estimate(values: np.ndarray) -> Estimate | None:
    """Of `values` (seeds, images): the mean over both. Images where any is NaN are left out; None if none is left.

    The interval is that of the mean over seeds, so it says what other images would change, not what other seeds would.
    """
    values = values[:, ~np.isnan(values).any(axis=0)]
    seeds, images = values.shape
    if not images or not seeds:
        return None
    by_image, by_seed = values.mean(axis=0), values.mean(axis=1)
    spread = (float(by_seed.min()), float(by_seed.max())) if seeds > 1 else (None, None)
    return Estimate(float(by_image.mean()), *(mean_interval(by_image) or (np.nan, np.nan)), images, *spread)


def estimate_share(values: np.ndarray) -> Estimate | None:
    """`estimate` of answers that are right (1) or wrong (0); of one seed with Wilson's interval, as tables have it."""
    found = estimate(values)
    if found is None or len(values) > 1:
        return found
    interval = wilson_interval(round(found.value * found.images), found.images)
    return found if interval is None else replace(found, low=interval[0], high=interval[1])


def record(name: str, found: Estimate | None) -> dict[str, Any]:
    """Columns <name>, <name>_low, ... of a record."""
    numbers = asdict(found) if found else dict.fromkeys(Estimate.__dataclass_fields__)
    return {name if key == "value" else f"{name}_{key}": value for key, value in numbers.items()}


def format_estimate(found: Estimate | None, decimals: int, scale: float = 1.0, signed: bool = False) -> str:
    """'0.312 [0.290, 0.333]', with its interval."""
    if found is None:
        return NO_DATA
    value, low, high = (number(scale * part, decimals, signed) for part in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def format_seed_range(found: Estimate | None, decimals: int, scale: float = 1.0, signed: bool = False) -> str:
    """'0.290 to 0.333': from the least to the largest of the seeds."""
    if found is None or found.least is None or found.largest is None:
        return NO_DATA
    return " to ".join(number(scale * part, decimals, signed) for part in (found.least, found.largest))


def number(value: float, decimals: int, signed: bool = False) -> str:
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    zero = f"{0:.{decimals}f}"
    return zero if text.lstrip("+-") == zero else text.replace("-", "−")
