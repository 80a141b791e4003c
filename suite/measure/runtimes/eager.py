"""PyTorch runs the model itself, operator by operator."""

from __future__ import annotations

from torch import Tensor, nn

from suite.measure.runtimes.base import Prepared, Runtime, register


@register("eager")
class Eager(Runtime):
    """The model as it is."""

    exact = True

    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        return Prepared(model)
