"""The ways in which a request or a cell can fail, told in one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

UNREACHED = "cannot be reached by"  # in the reason of a cell that no rate makes as cheap as it was asked to be
MOST_NAMES = 40  # that a line lists


class RequestError(Exception):
    """What was asked cannot be done. The text names the item, the value and what to do; the CLI exits with 2."""


class UnavailableError(RequestError):
    """What was asked for cannot be had here and now, such as weights that no hub gives; another model may be had."""


class CellError(Exception):
    """One cell could not be measured. The text names the batch or sample; the sweep goes on and exits with 1."""


class OutputError(CellError):
    """A model's output for one image of a batch has no meaning. `row` is its place, for whoever knows the sample."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row, self.reason = row, reason

    def __str__(self) -> str:
        return self.reason


def unknown(kind: str, name: str, known: Iterable[str]) -> RequestError:
    """The answer to a name that is not known: the nearest known ones, or all of them."""
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    listed, more = ", ".join(known[:MOST_NAMES]), len(known) - MOST_NAMES
    listed += f" and {more} more" if more > 0 else ""
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {listed}"
    return RequestError(f"unknown {kind} {name!r}; {hint}")


def describe_error(error: Exception) -> str:
    """One line that any file can hold; with the type of an error that is not ours."""
    text = " ".join(str(error).encode("utf-8", "replace").decode().split())
    return text if isinstance(error, RequestError | CellError) else f"{type(error).__name__}: {text}"
