"""Which of many samples are taken, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from suite.errors import RequestError

Item = TypeVar("Item")


def evenly_spaced(samples: Sequence[Item], limit: int | None) -> list[Item]:
    """`limit` of the samples, evenly spaced over their order: item i is sample floor((i + 0.5) * N / limit).

    Samples are ordered by class, so a few of them still come from every region of the classes. None, or a
    limit of at least N, keeps all. Raises RequestError for a limit below 1.
    """
    if limit is None or limit >= len(samples):
        return list(samples)
    if limit < 1:
        raise RequestError(f"limit {limit} asks for no sample; use a limit of 1 or more, or none")
    total = len(samples)
    return [samples[(2 * i + 1) * total // (2 * limit)] for i in range(limit)]


def spread(samples: Sequence[Item]) -> list[Item]:
    """All samples in an order whose beginnings, of any length, are spread over the original order.

    Place i goes where the bits of i stand in reverse (J. G. van der Corput, "Verteilungsfunktionen", 1935), so that a
    longer beginning holds a shorter one.
    """
    bits = max(len(samples) - 1, 0).bit_length()
    places = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(2**bits)) if bits else iter(range(len(samples)))
    return [samples[place] for place in places if place < len(samples)]
