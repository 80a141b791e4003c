"""Which of many alike cases `make test` runs; `make test-all` runs all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import pytest


def one_in(every: int, cases: Iterable[Sequence[Any]]) -> list[Any]:
    """The cases, each of several values, as parameters of a test: one in `every` is quick, the others are slow."""
    return [mostly_slow(every, [place], case) for place, case in enumerate(cases)]


def spread(every: int, *values: Iterable[Any]) -> list[Any]:
    """All combinations of `values` as parameters of a test: one in `every` is quick, the others are slow.

    The quick ones lie on diagonals: every value is among them if one of the other lists has `every` values or more.
    """
    numbered = product(*(enumerate(each) for each in values))
    return [mostly_slow(every, *zip(*case, strict=True)) for case in numbered]


def mostly_slow(every: int, places: Iterable[int], case: Iterable[Any], id: str | None = None) -> Any:
    """The parameter `case`: a slow one but where the sum of its `places` is a multiple of `every`."""
    return pytest.param(*case, id=id, marks=[pytest.mark.slow] if sum(places) % every else [])
