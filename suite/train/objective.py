"""What a task teaches: examples of it, and the loss of a model on a batch of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from suite.task import Sample, Task

if TYPE_CHECKING:
    from suite.train.recipe import Recipe


@dataclass(frozen=True)
class Examples:
    """A batch. images: (B, 3, H, W) float32. targets: what the loss compares with. ids: of the samples, in order."""

    images: Tensor
    targets: Any
    ids: tuple[str, ...]


class Objective(ABC):
    """How a model is taught one kind of task, whatever is reduced in it.

    It pickles, for examples are made in worker processes.
    """

    task_class: ClassVar[type[Task]]
    """The kind of task that it serves."""
    kind: ClassVar[str]
    """Its name: classification, captioning, segmentation."""

    def __init__(self, task: Task, model: nn.Module, recipe: Recipe) -> None:
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

    @abstractmethod
    def loss(self, model: nn.Module, batch: Examples) -> Tensor:
        """Mean loss of the whole model on a batch, a float32 scalar with gradient. Autocast is on around the call."""
