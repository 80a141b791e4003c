"""The two ways in which a request or a cell can fail, told in one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RequestError(Exception):
    """What was asked cannot be done. The text names the item, the value and what to do; the CLI exits with 2."""


class CellError(Exception):
    """One cell could not be measured. The text names the batch or sample; the sweep goes on and exits with 1."""


def unknown(kind: str, name: str, known: Iterable[str]) -> RequestError:
    """The answer to a name that is not known: the nearest known ones, or all of them."""
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(known)}"
    return RequestError(f"unknown {kind} {name!r}; {hint}")
