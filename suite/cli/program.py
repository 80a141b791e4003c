"""The program: signals are heard, and streams may go away, before anything heavy is imported."""

from __future__ import annotations

import sys

from suite.cli.ending import ExitCode, outcome_of
from suite.cli.signals import end_at_signals, hear_signals
from suite.cli.streams import is_closed_pipe, lasting_streams
from suite.contract.printable import printable


def main() -> None:
    """Run the verb of the command line, and exit. docs/promises.md says what the exit codes are."""
    hear_signals()
    with lasting_streams() as output:
        code, said = outcome_of(_run)
        end_at_signals()
        if said:
            print(printable(said), file=sys.stderr)
        if output is not None:
            sys.stdout.flush()
        if output is not None and output.fault is not None and not is_closed_pipe(output.fault):
            print(f"error: standard output is not whole: {output.fault.strerror}", file=sys.stderr)
            code = code or ExitCode.MACHINE
    sys.exit(code)


def _run() -> None:
    from suite.cli.app import main as run_verb

    run_verb()
