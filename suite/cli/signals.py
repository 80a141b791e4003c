"""Signals that ask the program to end: what is open is closed, and who asks twice does not wait for that."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OF_SIGNAL = 128  # what shells add to a signal's number to have an exit code
AGAIN = 1.0  # seconds after which the same wish is a second one: launchers pass on what the terminal has sent already
LOST = 20.0  # seconds after which a library must have swallowed what was raised


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end."""


class Received:
    """What a process was asked by a signal. exit_code: None before there is one. process: the one that hears them."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.process, self._since = 0, 0.0

    def handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # one that was forked reads images, and has nothing to close
            os._exit(OF_SIGNAL + number)
        if number == signal.SIGALRM:
            raise Interrupted
        if self.exit_code is None:
            self.exit_code, self._since = OF_SIGNAL + number, time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, LOST, LOST)
            raise Interrupted
        if time.monotonic() - self._since > AGAIN:
            os._exit(OF_SIGNAL + number)


RECEIVED = Received()


def hear_signals() -> None:
    """From now on Interrupted is raised where a signal asks for the end. Those that are ignored stay ignored."""
    RECEIVED.process = os.getpid()
    for number in (*_heard(), signal.SIGALRM):
        signal.signal(number, RECEIVED.handle)
    told = sys.unraisablehook

    def raise_later(unraisable: sys.UnraisableHookArgs) -> None:
        """What is raised while an object is destroyed is heard by nobody."""
        if isinstance(unraisable.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, 0.01, LOST)
        else:
            told(unraisable)

    sys.unraisablehook = raise_later


def end_at_signals() -> None:
    """From now on a signal ends the process: Python would print where it was."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in _heard():
        signal.signal(number, signal.SIG_DFL)


def _heard() -> list[int]:
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
