"""Trainings that are to be compared, and what comes of each at several costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.frame import load_frame, load_samples
from reports.text.headings import RANDOM_WEIGHTS
from suite.contract.baseline import BASELINE
from suite.errors import RequestError
from suite.rates.rate import FlopsTarget, parse_rate
from suite.store.folder import RunFolder
from suite.sweep.api import run_sweep
from suite.sweep.methods import NO_WEIGHTS
from suite.sweep.plan import make_task
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec
from suite.train.run import Request, train_method
from tasks import task_class
from tasks.classification import ClassificationTask

UNREDUCED = ""  # the target of the unreduced model, and what stands for the source of its weights
SPOKEN_FOR = {"seed": "use --seeds", "reducer_options": "leave it out", "end_to_end": "leave it out"}


@dataclass(frozen=True)
class Measured:
    """One method at one cost. correct: (n,) 1.0 or 0.0 by sample id."""

    rate: str
    reduction: float
    gmacs: float
    correct: pd.Series


@dataclass(frozen=True)
class Bench:
    """Where trials are trained and measured. Both are stored below `out`, and what is stored is not done again.

    train_data: what is trained on, `data` what is measured on. train_limit, limit: samples of them. flops: changes of
    total FLOPs.
    """

    task: str
    data: str | None
    train_data: str | None
    model: str
    checkpoint: str
    task_options: Mapping[str, Any]
    flops: tuple[FlopsTarget, ...]
    train_limit: int | None
    limit: int | None
    device: str
    workers: int | None
    out: Path
    progress: Progress
    failed: list[str] = field(default_factory=list)
    """Cells that could not be measured, and why."""

    def check(self) -> None:
        """RequestError for a task that has no answers that are right or wrong, or nothing of its own to train on."""
        cls = task_class(self.task)
        if not issubclass(cls, ClassificationTask):
            raise RequestError(f"task {self.task!r} is no classification, which this analysis compares methods by")
        if not cls.training and self.train_data is None:
            raise RequestError(f"task {self.task!r} has no training data of its own; name them with --train-data")

    @property
    def training_options(self) -> dict[str, Any]:
        """Those of the task, but for what says which data are trained on."""
        return {key: value for key, value in self.task_options.items() if key not in task_class(self.task).training}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What must be known of all that is measured here."""
        return (f"{RANDOM_WEIGHTS}.".capitalize(),) if self.checkpoint == "none" else ()

    @property
    def targets(self) -> tuple[str, ...]:
        """What is measured at, by the names that `measure` gives it."""
        return tuple(target.amount for target in self.flops)

    def training_samples(self) -> int:
        """How many samples there are to train on."""
        options = {**task_class(self.task).training, **self.training_options}
        return len(make_task(RunSpec(task=self.task, data=self.train_data, task_options=options)).samples)

    def train(self, name: str, method: str, settings: Mapping[str, Any], samples: int | None = None) -> Path:
        """The file of what was learned. settings: of the recipe. samples: to train on, default `train_limit`."""
        request = Request(
            method, self.task, self.train_data, self.model, self.checkpoint, self.training_options,
            samples or self.train_limit, self.device, self.workers, out=str(self.out / "train" / name),
        )  # fmt: skip
        self.progress.note(f"training {name}")
        return train_method(request, dict(settings), self.progress).weights

    def measure(
        self, method: str, sources: Sequence[str], options: Mapping[str, Any] | None = None
    ) -> dict[str, dict[str, Measured]]:
        """Source -> FLOPs target -> what `method` with these weights ('none', or files) came to.

        Under UNREDUCED stands the unreduced model. What fails is left out and noted in `failed`.
        """
        values: dict[str, Any] = {
            "task": self.task, "data": self.data, "model": self.model, "checkpoint": self.checkpoint,
            "task_options": dict(self.task_options), "limit": self.limit, "device": self.device,
            "workers": self.workers, "flops": self.flops, "speed": False, "out": str(self.out / "run"),
            "reducers": tuple(f"{method}@{source}" for source in sources),
            "reducer_options": {method: dict(options)} if options else {},
        }  # fmt: skip
        results = run_sweep(values, progress=self.progress)  # the analysis has its own
        self.failed.extend(results.failed)
        return stored(results.out, results.cells)


def stored(out: Path, keys: Sequence[str]) -> dict[str, dict[str, Measured]]:
    """The finished ones of the cells, by the source of their weights and by their FLOPs target."""
    frame = load_frame(out)
    found: dict[str, dict[str, Measured]] = {}
    for key in keys:
        row = frame.loc[key]
        if row.status != "done":
            continue
        weights = (RunFolder(out).cell(key).read("cell") or {})["reducer_weights"]
        source = weights["source"] if weights else UNREDUCED if row.reducer == BASELINE else NO_WEIGHTS
        rate = parse_rate(row.rate) if row.rate else None
        target = rate.amount if isinstance(rate, FlopsTarget) else UNREDUCED
        correct = load_samples(out, key).set_index("id")["correct"].astype(float)
        found.setdefault(source, {})[target] = Measured(
            row.resolved_rate or "", float(row.reduction), float(row.gmacs), correct
        )
    return found


def outcomes(cells: Sequence[Measured | None]) -> np.ndarray | None:
    """(seeds, samples) 1.0 where an answer is right, samples in the same order for all; None if a cell is lacking."""
    there = [cell for cell in cells if cell is not None]
    if not there or len(there) < len(cells):
        return None
    return np.stack([cell.correct.sort_index().to_numpy() for cell in there])


def check_settings(settings: Mapping[str, Any], further: Mapping[str, str] | None = None) -> None:
    """RequestError for what an analysis decides itself: setting -> what to do instead."""
    for name, instead in {**SPOKEN_FOR, **(further or {})}.items():
        if name in settings:
            raise RequestError(f"--{name.replace('_', '-')} is set by the analysis itself; {instead}")
