"""What answers for a cell where its outcomes are made: the model itself, or a runtime that it was exported to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from suite.backbones import backbone_of
from suite.errors import RequestError
from suite.measure.runtimes import EAGER, make_runtime
from suite.measure.runtimes.base import Prepared, Runtime


class Answers:
    """Of the cells of one plan, by their keys."""

    def __init__(self, model: nn.Module, runtime: str) -> None:
        self.model, self.runtime = model, runtime
        self._made: dict[str, InRuntime] = {}

    @property
    def eager(self) -> bool:
        return self.runtime == EAGER

    def of(self, key: str) -> Any:
        """What a task's `predict` is given; called while the cell's reducer is attached."""
        if self.eager:
            return self.model
        if key not in self._made:
            self._made[key] = InRuntime(self.model, make_runtime(self.runtime))
        return self._made[key]


class InRuntime:
    """A model as a runtime runs it: prepared for the first batch, smaller ones are filled up with their last image."""

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        self.model, self.runtime = model, runtime
        self._prepared: Prepared | None = None
        self._size = 0

    def __call__(self, images: Tensor) -> Tensor:
        count = len(images)
        if self._prepared is None or count > self._size:
            self._prepared, self._size = self.runtime.prepare(self.model, images), count
        missing = self._size - count
        filled = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
        outputs: Tensor = self._prepared.forward(filled)
        return outputs[:count].clone()  # some runtimes write the next ones over them


def check_scored_in(runtime: str, model: nn.Module) -> None:
    """RequestError for a model of which more than one forward makes an answer."""
    if runtime != EAGER and (backbone_of(model) is not model or getattr(model, "num_classes", None) is None):
        raise RequestError(f"scored_in={runtime!r}: only classifiers are scored in another runtime; use {EAGER}")
