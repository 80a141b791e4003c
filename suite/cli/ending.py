"""How the program ends: an exit code, and one line on whatever stopped it."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from enum import IntEnum

from suite.cli.signals import RECEIVED
from suite.errors import MachineError, RequestError, what_ran_out

TAKEN = (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
CONTINUES = "the same command continues where this one stopped"


class ExitCode(IntEnum):
    """How a verb ended. `compare` and `check` add theirs: see `suite.gate.verdict.EXIT`. docs/promises.md has all."""

    DONE = 0
    FAILED = 1  # something that was asked for has no result; all else has
    BAD_REQUEST = 2
    DEFECT = 70
    MACHINE = 71  # something of the machine gave out
    INTERRUPTED = 130  # and 128 + the number of other signals


def outcome_of(run: Callable[[], int | None], debug: bool = False) -> tuple[int, str]:
    """Exit code of what `run` does, and the line that is to be said of it, if any."""
    try:
        return run() or ExitCode.DONE, ""
    except SystemExit as ended:
        return (ended.code if isinstance(ended.code, int) else ExitCode.DONE), ""
    except BaseException as error:
        if debug:
            traceback.print_exc()
        return explain(error)


def explain(error: BaseException) -> tuple[int, str]:
    """A place that cannot be written to is the request's fault; what nobody has foreseen is ours."""
    text = " ".join((str(error).splitlines() or [""])[0].split())
    if RECEIVED.exit_code is not None or isinstance(error, KeyboardInterrupt):  # libraries make other errors of it
        return RECEIVED.exit_code or ExitCode.INTERRUPTED, f"interrupted; {CONTINUES}"
    if isinstance(error, RequestError):
        return ExitCode.BAD_REQUEST, f"error: {' '.join(str(error).split())}"
    where = f"{error.filename!r}: " if isinstance(error, OSError) and error.filename else ""
    if what := what_ran_out(error):
        said = where + (error.strerror or text) if isinstance(error, OSError) else text or type(error).__name__
        return ExitCode.MACHINE, f"error: the machine is out of {what}: {said}; make room, then {CONTINUES}"
    if isinstance(error, MachineError):
        return ExitCode.MACHINE, f"error: {text}; {CONTINUES}"
    if isinstance(error, TAKEN) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        return ExitCode.BAD_REQUEST, f"error: {where}{error.strerror}; give another place or file"
    if isinstance(error, OSError) and where:
        return ExitCode.MACHINE, f"error: {where}{error.strerror}; see to the disk, then {CONTINUES}"
    whole = " ".join(str(error).split())
    return ExitCode.DEFECT, f"defect: {type(error).__name__}: {whole} (--debug shows where)"
