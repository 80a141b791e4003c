"""A training that somebody stops once it has something to go on from."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from suite.sweep.progress import Progress
from suite.train.loop import CHECKPOINT


class Stop(Exception):
    """It was stopped."""


class Interrupting(Progress):
    """Raises Stop when there is a checkpoint in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(quiet=True)
        self.folder = folder

    @contextmanager
    def updates(self, label, total):
        def advance(what, done):
            if (self.folder / CHECKPOINT).exists():
                raise Stop

        yield advance
