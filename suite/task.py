"""The contract of a task: its samples, how one is read, what an output is worth, what the outcomes add up to.

A task knows a predict function's outputs only; it never learns which reducer, or whether any, produced them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from suite.errors import RequestError


@dataclass(frozen=True)
class Sample:
    """One sample that a run is expected to score.

    `id` is stable: the same for the same data in another layout or on another machine. `path` says where the
    bytes lie, for messages and for reading; it is empty for generated data. A task may subclass this.
    """

    id: str
    label: int
    path: str = ""


class ReadError(Exception):
    """One sample cannot be read. It is recorded by its id and path and never replaced by another."""

    def __init__(self, id: str, path: str, reason: str) -> None:
        # All arguments go to Exception, so that the error survives the pickling between loader workers.
        super().__init__(id, path, reason)
        self.id, self.path, self.reason = id, path, reason

    def __str__(self) -> str:
        return f"{self.path or self.id}: {self.reason}"


class Task(ABC):
    """What a model is measured on. One object serves every model and every cell of a sweep.

    A subclass fills `samples` and `num_classes` in `__init__(data, limit, **options)` and raises RequestError
    there for data that cannot be used at all. `options` are keyword arguments with defaults.
    """

    name: ClassVar[str]
    samples: Sequence[Sample]  # fixed order, unique ids; one whose file is missing is listed too
    num_classes: int | None  # labels lie in [0, num_classes); None: the model decides
    notes: Sequence[str] = ()  # lines the user should read once, e.g. files that were left out and why

    def __init__(self, data: str | None = None, limit: int | None = None) -> None:
        self.data, self.limit = data, limit

    @abstractmethod
    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> Hashable:
        """What turns one raw sample into the model's input; it must pickle and be hashable.

        Two models with equal `preprocessing` can share decoded images, so this is the key to share them by.
        `image_size` (pixels) overrides the model's own.
        """

    @abstractmethod
    def load(self, sample: Sample, preprocessing: Any) -> Tensor:
        """The model's input for one sample, (3, H, W) float32. Raises ReadError for bad data."""

    @abstractmethod
    def score(self, outputs: Tensor, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """One row per sample from a batch of outputs, in order, ready for the per-sample table.

        Raises CellError that names the first sample whose output has no meaning (NaN, Inf, wrong shape).
        """

    @abstractmethod
    def summary(self, frame: pd.DataFrame) -> dict[str, tuple[float | None, int]]:
        """Metric name -> (value or None, number of samples behind it), from rows of `score`."""

    def check_model(self, model: nn.Module) -> None:
        """Raises RequestError when this model cannot be scored on this task; called before anything runs."""
        classes = getattr(model, "num_classes", None)
        if self.num_classes is not None and classes is not None and classes != self.num_classes:
            raise RequestError(
                f"task '{self.name}' has {self.num_classes} classes, but the model outputs {classes}; "
                "use a model whose head was trained for these classes"
            )


def evenly_spaced(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """`limit` of the samples, evenly spaced over their order: item i is sample floor((i + 0.5) * N / limit).

    Samples are ordered by class, so a few of them still come from every region of the classes. None, or a
    limit of at least N, keeps all. Raises RequestError for a limit below 1.
    """
    if limit is None or limit >= len(samples):
        return list(samples)
    if limit < 1:
        raise RequestError(f"limit {limit} asks for no sample; use a limit of 1 or more, or none")
    total = len(samples)
    return [samples[(2 * i + 1) * total // (2 * limit)] for i in range(limit)]


@dataclass(frozen=True)
class Batch:
    """What one loader step yields: `images` (B, 3, H, W) float32, row i for `samples[i]`; B may be 0."""

    samples: list[Sample]
    images: Tensor
    errors: list[ReadError]


class Reader(Dataset):
    """Reads samples strictly: item i is sample i's tensor or the ReadError that says why there is none.

    Use with `DataLoader(Reader(...), batch_size, shuffle=False, num_workers=n, collate_fn=collate)`. Any
    exception but ReadError is a defect of the task and stops the run.
    """

    def __init__(self, task: Task, samples: Iterable[Sample], preprocessing: Callable | Any) -> None:
        self.task, self.samples, self.preprocessing = task, list(samples), preprocessing

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Sample, Tensor | ReadError]:
        sample = self.samples[index]
        try:
            return sample, self.task.load(sample, self.preprocessing)
        except ReadError as error:
            return sample, error


def collate(items: Sequence[tuple[Sample, Tensor | ReadError]]) -> Batch:
    """Joins items of `Reader` into a Batch; an unreadable sample stands in `errors` and has no row."""
    read = [(sample, item) for sample, item in items if not isinstance(item, ReadError)]
    errors = [item for _, item in items if isinstance(item, ReadError)]
    images = torch.stack([image for _, image in read]) if read else torch.empty(0)
    return Batch([sample for sample, _ in read], images, errors)
