"""The one training loop: update by update, with a bar, a log, checkpoints, and exact resume.

What is trained is a `Job`. All randomness of an update is drawn from its number, so that a job that goes on from a
checkpoint does what it would have done without the interruption.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch

from suite.errors import RequestError
from suite.store.files import atomic_path
from suite.sweep.progress import Progress

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.csv"


class Diverged(RequestError):
    """The loss is no number any more."""


class Job(Protocol):
    """identity: what must be equal for a checkpoint to be gone on with."""

    @property
    def steps(self) -> int: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def start(self, step: int) -> None:
        """Called once, before the first update, with its number."""

    def update(self, step: int) -> dict[str, float]:
        """One update. Returns what is to be noted of it. Raises Diverged before anything is changed."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train(
    job: Job,
    folder: Path,
    progress: Progress,
    *,
    every: int = 100,
    log_every: int = 10,
    main: bool = True,
    saved: Callable[[int], object] = lambda step: None,
) -> None:
    """Bring `job` to its last update, from the checkpoint in `folder` if there is one.

    every: updates between checkpoints. main: this process writes (of several GPUs, one). saved: called whenever a
    checkpoint was written, with the number of updates that are done.
    RequestError for a checkpoint of another job; Diverged, which leaves the last checkpoint as it is.
    """
    first = resume(job, folder / CHECKPOINT)
    job.start(first)
    log = Log(folder, first) if main else None
    label = f"training, from update {first}" if first else "training"
    try:
        with progress.updates(label, job.steps - first) as advance:
            for step in range(first, job.steps):
                noted, done = job.update(step), step + 1
                if log:
                    log.add(noted)
                if log and (done % log_every == 0 or done == job.steps):
                    log.write(done)
                if main and (done % every == 0 or done == job.steps):
                    save(job, folder / CHECKPOINT, done)
                    saved(done)
                advance(f"loss {noted['loss']:.4f}", 1)
    finally:
        if log:
            log.close()


def resume(job: Job, file: Path) -> int:
    """Load a checkpoint, if there is one: updates that are done."""
    state = read_state(file)
    if state is None:
        return 0
    check_identity(state, job.identity, file)
    job.load_state_dict(state["job"])
    return state["step"]


def read_state(file: Path) -> dict[str, Any] | None:
    """A checkpoint, if there is one. RequestError for a file that is none."""
    if not file.exists():
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        return {key: state[key] for key in ("identity", "job", "step")}
    except Exception as error:  # a damaged file can fail in any way
        raise RequestError(f"{str(file)!r} is no checkpoint of a training; delete it to start again") from error


def check_identity(state: Mapping[str, Any] | None, identity: Mapping[str, Any], file: Path) -> None:
    """RequestError, with the first difference, for a checkpoint of another training."""
    if state is not None and (found := find_difference(state["identity"], identity)):
        raise RequestError(
            f"{str(file)!r} is of another training: {found}; use another --out, or delete it to start again"
        )


def find_difference(stored: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> str:
    """'recipe.lr was 0.1 and is now 0.2': the first of what is wanted now that was not so before; '' if all was."""
    for key, value in now.items():
        before = stored.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            if found := find_difference(before, value, f"{within}{key}."):
                return found
        elif json.dumps(before) != json.dumps(value):
            return f"{within}{key} was {before!r} and is now {value!r}"
    return ""


def save(job: Job, file: Path, step: int) -> None:
    """Write a checkpoint that is whole or not there at all."""
    with atomic_path(file) as whole:
        torch.save({"identity": dict(job.identity), "job": job.state_dict(), "step": step}, whole)


class Log:
    """metrics.csv and TensorBoard's events, means of the updates since the row before.

    What an interrupted run wrote beyond its last checkpoint is taken out.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.file = folder / METRICS
        self.rows: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.since: dict[str, list[float]] = {}
        if self.file.exists():
            with self.file.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= first]
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first)

    def add(self, noted: Mapping[str, float]) -> None:
        for name, value in noted.items():
            self.since.setdefault(name, []).append(value)

    def write(self, step: int) -> None:
        noted, self.since = {name: fmean(values) for name, values in self.since.items()}, {}
        self.rows.append({"step": step, **{name: f"{value:.6g}" for name, value in noted.items()}})
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        if names == self.names:
            with self.file.open("a", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, names).writerow(self.rows[-1])
        else:
            self._rewrite(names)
        for name, value in noted.items():
            self.board.add_scalar(name, value, step)

    def _rewrite(self, names: list[str]) -> None:
        self.names = names
        with atomic_path(self.file) as whole, whole.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(self.rows)

    def close(self) -> None:
        self.board.close()
