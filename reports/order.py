"""The order of rows that every table and page has, whatever order cells were run in."""

from __future__ import annotations

from typing import Any

from suite.contract.baseline import BASELINE
from suite.errors import RequestError
from suite.rates.rate import parse_rate


def method_order(reducer: str, options: str, training: str) -> tuple[Any, ...]:
    """Unreduced first, then methods by name and options, the untrained before the trained."""
    return reducer != BASELINE, reducer, options, training.startswith("trained"), training


def rate_order(rate: str, gmacs: float | None = None) -> tuple[Any, ...]:
    """The weakest reduction first: that of the highest cost; where no cost is known, as the rate was asked for.

    r=8 is weaker than r=13, keep=0.7 than keep=0.5, flops=-35% than flops=-60%.
    """
    try:
        asked = parse_rate(rate)
        strength = asked.prefix, asked.strength
    except RequestError:  # the unreduced model's, or one of another version's
        strength = "", 0.0
    return gmacs is None, -(gmacs or 0.0), *strength, rate
