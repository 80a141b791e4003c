"""The contract of a task: its samples, how one is read, what a model makes of it, what that is worth.

A task hands images to a model and judges what comes back; it never learns which reducer, or whether any, was in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, get_worker_info

from suite.contract.content import Content, Tree, with_content
from suite.contract.metric import TaskReport
from suite.contract.shared_memory import received, sendable, share
from suite.errors import CellError


@dataclass(frozen=True)
class Sample:
    """One sample that a run is expected to score.

    `id` is stable: the same for the same data in another layout or on another machine. `label` is what outputs are
    compared with: a class index, or a tuple of reference captions. `path` says where the bytes lie, for messages and
    for reading; it is empty for generated data. `content` says what its files held, of a sample that was read from any.
    """

    id: str
    label: Any
    path: str = ""
    content: Content | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Score:
    """A metric's value over the samples of a cell, with its 95 % interval. No value: `reason` says why.

    chance: what guessing comes to, where that is known.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    chance: float | None = None


@dataclass(frozen=True)
class Summary:
    """What the outcomes of a cell add up to.

    scores: by the names of `shown.metrics`. samples: a number per metric and sample where the outcomes do not say it
    already, with the column `id`. notes: what a reader must know, e.g. how many captions are empty.
    """

    scores: dict[str, Score]
    samples: pd.DataFrame | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)


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

    A subclass fills `samples` in `__init__(data, limit, **options)` and raises RequestError there for data that cannot
    be used at all. `options` are keyword arguments with defaults.
    """

    name: ClassVar[str]
    default_model: ClassVar[str]
    shown: ClassVar[TaskReport]  # its metrics, further costs, and the name of the whole model's speed
    outcomes: ClassVar[pa.Schema]  # columns of a row of `score`, 'id' and 'prediction' among them
    samples: Sequence[Sample]  # fixed order, unique ids; one whose file is missing is listed too
    support: Sequence[Sample] = ()  # run and stored as the samples are, and not scored: what these are scored by
    beside: ClassVar[Sequence[str]] = ()  # outcomes of the unreduced model that its own are scored by, see `summaries`
    drawn: ClassVar[str] = ""  # the option that says how many samples are drawn; "": they are given, and end
    default_reducers: ClassVar[tuple[str, ...]] = ()  # where those that a run takes else would not do
    default_rates: ClassVar[tuple[str, ...]] = ()  # likewise
    default_batch_size: ClassVar[int] = 64
    training: ClassVar[Mapping[str, Any]] = {}  # options that give what a method is trained on; never what is reported
    notes: Sequence[str] = ()  # lines the user should read once, e.g. files that were left out and why
    tree: Tree | None = None  # what all files of the samples are read with; None: they are drawn

    def __init_subclass__(cls, **options: Any) -> None:
        """A class that has a `score` of its own is scored by that, not by what its kind measures."""
        super().__init_subclass__(**options)
        if "score" in vars(cls) and "columns" not in vars(cls):
            cls.measure, cls.columns = Task.measure, Task.columns  # type: ignore[method-assign]

    def __init__(self, data: str | None = None, limit: int | None = None) -> None:
        self.data, self.limit = data, limit

    @property
    def forwarded(self) -> list[Sample]:
        """All that go through a model: the samples, then `support`."""
        return [*self.samples, *self.support]

    @property
    def class_names(self) -> Sequence[str]:
        """By class index, of tasks whose labels are classes that have names."""
        return ()

    @abstractmethod
    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> Hashable:
        """What turns one raw sample into the model's input; it must pickle and be hashable.

        Two models with equal `preprocessing` can share decoded images, so this is the key to share them by.
        `image_size` (pixels) overrides the model's own.
        """

    @abstractmethod
    def load(self, sample: Sample, preprocessing: Any) -> Tensor:
        """The model's input for one sample, (3, H, W) float32, of a denoiser (C, H, W). Raises ReadError for bad data.

        Or (V, 3, H, W), V >= 1: several views of it, such as sliding windows. `predict` is given the views of all
        samples one after the other, and `score` what came of them.
        """

    @abstractmethod
    def check_model(self, model: nn.Module) -> None:
        """Raises RequestError when this model cannot be scored on this task; called before anything runs."""

    def files(self, sample: Sample) -> Sequence[str]:
        """Names in `tree` of the files that decide the sample, such as a picture and its mask; `load` reads them all.

        What a sample is compared with by its label is part of the label.
        """
        return ()

    def configure(self, model: nn.Module) -> None:  # noqa: B027  most tasks have nothing to tell
        """Tell the model what the task's options decide about it; called once, after `check_model`."""

    def protocol(self) -> dict[str, Any]:
        """What decides a prediction beside model and image, such as the width of a beam; part of a run's identity."""
        return {}

    def predict(self, model: nn.Module, images: Tensor) -> Any:
        """What the whole model makes of preprocessed images (B, 3, H, W), ready for `score`."""
        return model(images)

    def predict_samples(self, model: nn.Module, images: Tensor, samples: Sequence[Sample]) -> Any:
        """`predict` for tasks whose outputs follow from more than the images, such as from what is to be drawn."""
        return self.predict(model, images)

    @abstractmethod
    def score(self, outputs: Any, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """One row of `outcomes` per sample from a batch of `predict`'s outputs, in order.

        Raises CellError that names the first sample whose output has no meaning (NaN, Inf, wrong shape).
        """

    def measure(self, outputs: Any, samples: Sequence[Sample]) -> Any:
        """What the rows need of a batch of `predict`'s outputs: tensors, as few and as small as can be, in any nesting
        of tuples, lists and dicts. They stay on their device, and no number of theirs is read by the host.

        By default the outputs as they are. May raise CellError as `score` does, for what shapes and types say.
        """
        return outputs

    def columns(self, measured: Any, samples: Sequence[Sample]) -> pa.RecordBatch:
        """The rows of `score` as columns of `outcomes`, from what `measure` returned, whose tensors are on the CPU now.

        Raises CellError as `score` does: both say the same of the same outputs. By default they are what `score` says.
        """
        return pa.RecordBatch.from_pylist(self.score(measured, samples), schema=self.outcomes)

    def prepare_scoring(self) -> AbstractContextManager[None]:
        """Entered before the forwards whose rows `summaries` is given, and left after that: a scorer that is slow to
        start can start beside them. There is none by default."""
        return nullcontext()

    @abstractmethod
    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary | CellError]]:
        """The summary of every cell, from its rows of `score`, as soon as it is known; or why there is none.

        All cells are given at once, so that a scorer that is slow to start is started once; a cell's rows are read
        whenever `cells` is asked for them. The rows of `support` stand behind those of the samples, and what `beside`
        names of the unreduced model's row of a sample in its columns `unreduced_NAME`, null where there is none.
        """

    def undefined(self, counts: Mapping[str, int]) -> dict[str, Score]:
        """The scores that have no value where there is no more than `counts`, each with the reason; by their names.

        counts: of a cell, what the metrics' `needs` name.
        """
        reasons = {metric.name: metric.undefined(counts) for metric in self.shown.metrics}
        return {name: Score(None, reason=reason) for name, reason in reasons.items() if reason}

    def score_metrics(
        self, rows: pd.DataFrame, counts: Mapping[str, int], values: Mapping[str, float] | None = None
    ) -> dict[str, Score]:
        """Every metric that is declared, by its name: its value with its 95 % interval, or why it has none.

        rows: what a cell stores of its samples. counts: see `undefined`. values: of a scorer that is not ours; what it
        does not say is left out.
        """
        scores = self.undefined(counts)
        known: dict[Hashable, np.ndarray] = {}
        for metric in self.shown.metrics:
            made_of, addends = metric.aggregate, None
            if metric.name in scores:
                continue
            if made_of is not None and set(made_of.columns) <= set(rows):
                if made_of.added not in known:
                    [known[made_of.added]] = made_of.addends(rows)
                addends = known[made_of.added]
            if values is not None:
                value = values.get(metric.name)
            else:
                value = None if made_of is None or addends is None else made_of.score(addends)
            if value is not None:
                interval = None if made_of is None or addends is None else made_of.interval(addends)
                scores[metric.name] = Score(value, *(interval or (None, None)))
        return {metric.name: scores[metric.name] for metric in self.shown.metrics if metric.name in scores}

    def scoring_version(self) -> str:
        """What decides a summary beside the rows, such as a scorer's release; one of another version is made anew."""
        return ""

    def scorable(self) -> Collection[str]:
        """Metrics that may be unknown elsewhere and have a scorer here: a summary without one of them is made anew."""
        return ()

    def further_costs(
        self, model: nn.Module, images: Tensor, backbone: int, count: Callable[..., int]
    ) -> dict[str, float]:
        """Multiply-accumulates per image by the names of `shown.costs`, with whatever is attached to `model`.

        backbone: those of the backbone, per view. count(module, *inputs): those of one call, by the same counter.
        """
        return {}


@dataclass(frozen=True)
class Batch:
    """What one loader step yields: `images` (ΣV, 3, H, W) float32, the views of all samples; there may be none.

    views: how many of the rows are of each sample; 1 unless the task cuts its samples into several.
    """

    samples: list[Sample]
    images: Tensor
    errors: list[ReadError]
    views: list[int]

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU copies from by itself; loaders call it by this name."""
        return replace(self, images=self.images.pin_memory())

    def __reduce__(self) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
        return _received, (self.samples, sendable(self.images), self.errors, self.views)


def _received(samples: list[Sample], images: Any, errors: list[ReadError], views: list[int]) -> Batch:
    return Batch(samples, received(images), errors, views)


class Reader(Dataset[tuple[Sample, Tensor | ReadError]]):
    """Reads samples strictly: item i is sample i's tensor or the ReadError that says why there is none.

    Where samples have files, those of the items say what the files held.

    Use with `DataLoader(Reader(...), batch_size, shuffle=False, num_workers=n, collate_fn=collate)`. Any
    exception but ReadError is a defect of the task and stops the run.
    """

    def __init__(self, task: Task, samples: Iterable[Sample], preprocessing: Any) -> None:
        self.task, self.samples, self.preprocessing = task, list(samples), preprocessing

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Sample, Tensor | ReadError]:
        sample, tree = self.samples[index], self.task.tree
        try:
            if tree is None:
                return sample, self.task.load(sample, self.preprocessing)
            load = partial(self.task.load, sample, self.preprocessing)
            loaded, content = with_content(tree, self.task.files(sample), load)
            return replace(sample, content=content), loaded
        except ReadError as error:
            return sample, error


def collate(items: Sequence[tuple[Sample, Tensor | ReadError]]) -> Batch:
    """Joins items of `Reader` into a Batch; an unreadable sample stands in `errors` and has no row."""
    read = [(sample, item) for sample, item in items if not isinstance(item, ReadError)]
    errors = [item for _, item in items if isinstance(item, ReadError)]
    views = [views_of(item) for _, item in read]
    images = torch.cat(views) if views else torch.empty(0)
    if get_worker_info():
        share(images)
    return Batch([sample for sample, _ in read], images, errors, [len(of) for of in views])


def views_of(item: Tensor) -> Tensor:
    """What `Task.load` returns as (V, 3, H, W)."""
    return item if item.dim() == 4 else item[None]
