"""The ways in which a request or a cell can fail, told in one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

UNREACHED = "cannot be reached by"  # in the reason of a cell that no rate makes as cheap as it was asked to be
MOST_NAMES = 40  # that a line lists
ENDS = {
    errno.ENOSPC: "room on a disk",
    errno.EDQUOT: "its quota of a disk",
    errno.EFBIG: "room for a file (ulimit -f)",
    errno.EMFILE: "open files (ulimit -n)",
    errno.ENFILE: "open files",
    errno.ENOMEM: "memory",
    errno.EAGAIN: "processes or threads (ulimit -u)",
}
"""What a machine can run out of, by the number that the operating system says it with."""
MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")  # torch's, of RuntimeErrors


class RequestError(Exception):
    """What was asked cannot be done. The text names the item, the value and what to do; the CLI exits with 2."""


class UnavailableError(RequestError):
    """What was asked for cannot be had here and now, such as weights that no hub gives; another model may be had."""


class CellError(Exception):
    """One cell could not be measured. The text names the batch or sample; the sweep goes on and exits with 1."""


class MachineError(Exception):
    """The machine gave out: memory, disk, open files, a process that was killed. The text says what; the CLI exits with
    71, and the same command continues."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Python says so by type, torch by the words of its RuntimeError."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in MEMORY_WORDS)
    )


def what_ran_out(error: BaseException) -> str:
    """What the machine ran out of, as an error says or one that led to it, such as 'memory'; "" for other errors."""
    for one in _with_causes(error):
        if is_out_of_memory(one):
            return ENDS[errno.ENOMEM]
        if isinstance(one, OSError) and one.errno in ENDS:
            return ENDS[one.errno]
        if isinstance(one, RuntimeError) and "can't start new thread" in str(one):
            return ENDS[errno.EAGAIN]
        # of libraries, and of imports, whose errors have no number
        for number, what in ENDS.items():
            if not isinstance(one, RequestError | CellError) and os.strerror(number) in str(one):
                return what
    return ""


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        seen.append(at)
        yield at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
