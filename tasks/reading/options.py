"""What several tasks demand of their options."""

from __future__ import annotations

from typing import Any

from suite.errors import RequestError


def whole_number(option: str, value: Any) -> int:
    """`value`, which must be a whole number of 1 or more; RequestError that names the option for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"{option} {value!r} is not a whole number of 1 or more; write one, such as {option}=4")
    return value
