"""The order of rows that every table and page has, whatever order cells were run in."""

from __future__ import annotations

import re
from typing import Any


def method_order(reducer: str, options: str, training: str) -> tuple[Any, ...]:
    """Unreduced first, then methods by name and options, the untrained before the trained."""
    return reducer != "none", reducer, options, training.startswith("trained"), training


def rate_order(rate: str, gmacs: float | None = None) -> tuple[Any, ...]:
    """The weakest reduction first: that of the highest cost; where no cost is known, as the rate was asked for.

    r=8 is weaker than r=13, keep=0.7 than keep=0.5, flops=-35% than flops=-60%.
    """
    form, _, amount = rate.partition("=")
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", amount.partition("@")[0])]
    sign = -1 if form in ("keep", "flops") else 1
    return gmacs is None, -(gmacs or 0.0), form, sign * sum(numbers) / max(len(numbers), 1), rate
