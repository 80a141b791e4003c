"""What a command is at, for whoever watches its folder: a file that it replaces while it works, and removes at the end.

Nothing depends on it: a run that is continued finds what is stored, and never reads this.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

PULSE = ".pulse"
BETWEEN = 1.0  # seconds between two beats
STALE = 60.0  # seconds after which a command that says nothing is taken for gone; a forward may take some


@dataclass(frozen=True)
class Beat:
    """stage: what is being done, `done` of `of` of it since `began`; what: the cell that it is at. Times since 1970."""

    stage: str
    done: float
    of: float
    what: str
    began: float
    at: float

    @property
    def left(self) -> float | None:
        """Seconds until the stage is over, at its pace so far; None before there is one."""
        return (self.at - self.began) * (self.of - self.done) / self.done if self.done and self.of else None

    @property
    def silent(self) -> float:
        """Seconds since the command said so, if both clocks agree."""
        return time.time() - self.at


class Pulse:
    """Writes the beats of one command into a folder, where that is there."""

    def __init__(self, folder: str | Path) -> None:
        self.path, self._last = Path(folder) / PULSE, Beat("", 0, 0, "", 0.0, 0.0)

    def beat(self, stage: str, done: float, of: float, what: str) -> None:
        """Say where a stage is; not more often than once in `BETWEEN` seconds, but for its begin."""
        now, begins = time.time(), stage != self._last.stage or done < self._last.done
        if not begins and now - self._last.at < BETWEEN:
            return
        self._last = Beat(stage, done, of, what, now if begins else self._last.began, now)
        temporary = self.path.with_name(f".{os.getpid()}{PULSE}.tmp")
        with suppress(OSError):  # the folder is not made yet, or cannot be written: nobody can watch
            temporary.write_text(json.dumps(asdict(self._last)), encoding="utf-8")
            temporary.replace(self.path)

    def close(self) -> None:
        """Nothing is being done any more."""
        with suppress(OSError):
            self.path.unlink()


def read_beat(folder: str | Path) -> Beat | None:
    """The last one; None where no command works on the folder."""
    with suppress(OSError, ValueError, TypeError):
        return Beat(**json.loads((Path(folder) / PULSE).read_text(encoding="utf-8")))
    return None
