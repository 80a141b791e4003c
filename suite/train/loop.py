"""The one training loop: update by update, with a bar, a log, checkpoints, and exact resume.

What is trained is a `Job`. All randomness of an update is drawn from its number, so that a job that goes on from a
checkpoint does what it would have done without the interruption.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from suite.errors import RequestError
from suite.progress import Progress
from suite.store.files import atomic_path

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.csv"


class Diverged(RequestError):
    """The loss is no number any more."""


class Job(Protocol):
    """identity: what must be equal for a checkpoint to be gone on with."""

    steps: int
    identity: Mapping[str, Any]

    def start(self, step: int) -> None:
        """Called once, before the first update, with its number."""

    def update(self, step: int) -> dict[str, float]:
        """One update. Returns what is to be noted of it. Raises Diverged before anything is changed."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train(
    job: Job, folder: Path, progress: Progress, *, every: int = 100, log_every: int = 10, main: bool = True
) -> None:
    """Bring `job` to its last update, from the checkpoint in `folder` if there is one.

    every: updates between checkpoints. main: this process writes (of several GPUs, one).
    RequestError for a checkpoint of another job; Diverged, which leaves the last checkpoint as it is.
    """
    first = resume(job, folder / CHECKPOINT)
    job.start(first)
    log = Log(folder, first) if main else None
    label = f"training, from update {first}" if first else "training"
    with progress.updates(label, job.steps - first) as advance:
        for step in range(first, job.steps):
            noted = job.update(step)
            done = step + 1
            if log and (done % log_every == 0 or done == job.steps):
                log.write(done, noted)
            if main and (done % every == 0 or done == job.steps):
                save(job, folder / CHECKPOINT, done)
            advance(f"loss {noted['loss']:.4f}", 1)
    if log:
        log.close()


def resume(job: Job, file: Path) -> int:
    """Load a checkpoint, if there is one: updates that are done."""
    if not file.exists():
        return 0
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        raise RequestError(f"checkpoint {str(file)!r} cannot be read; delete it to start again") from error
    for key, value in job.identity.items():
        if state["identity"].get(key) != value:
            raise RequestError(
                f"checkpoint {str(file)!r} is of another training: {key} was {state['identity'].get(key)!r} and is now "
                f"{value!r}; use another --out, or delete it to start again"
            )
    job.load_state_dict(state["job"])
    return state["step"]


def save(job: Job, file: Path, step: int) -> None:
    """Write a checkpoint that is whole or not there at all."""
    with atomic_path(file) as whole:
        torch.save({"identity": dict(job.identity), "job": job.state_dict(), "step": step}, whole)


class Log:
    """metrics.csv and TensorBoard's events. What an interrupted run wrote beyond its last checkpoint is taken out."""

    def __init__(self, folder: Path, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.file, self.rows, self.names = folder / METRICS, [], []
        if self.file.exists():
            with self.file.open(newline="") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= first]
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first)

    def write(self, step: int, noted: Mapping[str, float]) -> None:
        self.rows.append({"step": step, **{name: f"{value:.6g}" for name, value in noted.items()}})
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        if names == self.names:
            with self.file.open("a", newline="") as stream:
                csv.DictWriter(stream, names).writerow(self.rows[-1])
        else:
            self._rewrite(names)
        for name, value in noted.items():
            self.board.add_scalar(name, value, step)

    def _rewrite(self, names: list[str]) -> None:
        self.names = names
        with atomic_path(self.file) as whole, whole.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(self.rows)

    def close(self) -> None:
        self.board.close()
