"""What a task teaches: examples of it, and the loss of a model on a batch of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from suite.contract.shared_memory import received, sendable
from suite.contract.task import Sample, Task
from suite.train.numbers import Numbers


@dataclass(frozen=True)
class Examples:
    """A batch, or a part of one.

    images: (B, 3, H, W) float32. targets: what the loss compares with. ids: of the samples, in order. terms: of a part,
    the terms that every mean of the loss is over, per sample of the whole update.
    """

    images: Tensor
    targets: Any
    ids: tuple[str, ...]
    terms: tuple[float, ...] | None = None

    def __reduce__(self) -> tuple[Callable[..., Examples], tuple[Any, ...]]:
        return _received, (sendable((self.images, self.targets)), self.ids, self.terms)

    def mean(self, total: Tensor, count: Tensor, which: int = 0) -> Tensor:
        """Mean of the `count` terms that make up `total`; 0 of none.

        A part divides by its share of the update's terms, which its own may be more or fewer than: weighted by samples,
        the parts add up to the mean over the whole update, however captions differ in length and masks in labels.
        """
        return total / (count.clamp(min=1) if self.terms is None else self.terms[which] * len(self.ids))


def _received(tensors: Any, ids: tuple[str, ...], terms: tuple[float, ...] | None) -> Examples:
    images, targets = received(tensors)
    return Examples(images, targets, ids, terms)


class Objective(ABC):
    """How a model is taught one kind of task, whatever is reduced in it.

    It pickles, for examples are made in worker processes.
    """

    task_class: ClassVar[type[Task]]
    """The kind of task that it serves."""
    kind: ClassVar[str]
    """Its name: classification, captioning, segmentation."""

    def __init__(self, task: Task, model: nn.Module, recipe: Numbers) -> None:
        self.task, self.recipe = task, recipe

    @abstractmethod
    def example(self, sample: Sample) -> tuple[Tensor, Any]:
        """One augmented image (3, H, W) and its target.

        Python's, numpy's and torch's global random states were seeded for this example; draw from them alone, so that
        training repeats whatever the number of workers. Raises ReadError for bad data.
        """

    def join(self, targets: Sequence[Any]) -> Any:
        """Targets of a batch from those of its examples."""
        return torch.as_tensor(targets)

    def prepare(self, batch: Examples) -> Examples:
        """A batch on the model's device as the loss takes it (mixup and the like); random states are seeded."""
        return batch

    def terms(self, batch: Examples) -> Tensor:
        """() int64, what `loss` is a mean over: the samples of a batch, or words or pixels of theirs."""
        return torch.tensor(len(batch.ids), device=batch.images.device)

    @abstractmethod
    def predict(self, model: nn.Module, batch: Examples) -> Tensor:
        """Logits (B, K, ...) of the whole model, in whatever precision autocast around the call gives."""

    @abstractmethod
    def criterion(self, logits: Tensor, batch: Examples) -> Tensor:
        """Mean loss of logits (B, K, ...) against the batch's targets, a float32 scalar with gradient.

        A mean over anything but samples is `batch.mean` of its sum.
        """

    def loss(self, model: nn.Module, batch: Examples) -> Tensor:
        """Mean loss of the whole model on a batch, a float32 scalar with gradient. Autocast is on around the call."""
        return self.criterion(self.predict(model, batch), batch)
