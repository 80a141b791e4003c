"""Standard output and error that may go away: what they cannot take is lost, the work goes on, and the end says so."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any


class Stream(io.FileIO):
    """The bytes of an open stream. `fault`: why not all of them were taken."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        if self.fault is None:
            try:
                return super().write(data)
            except OSError as error:
                self.fault = error
        return memoryview(data).nbytes


@contextmanager
def lasting_streams() -> Iterator[Stream | None]:
    """Puts streams that fail in silence in the place of the process' own, which may be a full disk, a pipe that nobody
    reads or a terminal that is gone, and know few letters. Gives that of the output, None where it is another's."""
    _fill_closed()
    kept = sys.stdout, sys.stderr
    found = [_lasting(stream, of) for stream, of in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__))]
    sys.stdout, sys.stderr = (text if text is not None else other for (text, _), other in zip(found, kept))
    try:
        yield found[0][1]
    finally:
        for text, _ in found:
            if text is not None:
                text.flush()
        sys.stdout, sys.stderr = kept


def is_closed_pipe(error: OSError) -> bool:
    """Whether who read has what was wanted, as `| head -1`."""
    return error.errno == errno.EPIPE


def _lasting(stream: IO[str], own: IO[str] | None) -> tuple[io.TextIOWrapper | None, Stream | None]:
    """Nothing for what a test or a library has put there."""
    if stream is not own or not isinstance(stream, io.TextIOWrapper):
        return None, None
    stream.flush()
    raw = Stream(stream.fileno(), "w", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, "replace", line_buffering=stream.line_buffering or raw.isatty()
    )
    return text, raw


def _fill_closed() -> None:
    """A file that is opened next must not become the standard output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
