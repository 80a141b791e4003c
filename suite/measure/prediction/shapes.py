"""The kernels of a model known by name, with and without a reducer, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException

from suite.attachment.attach import attach
from suite.errors import CellError
from suite.measure.from_shapes import ShapeModel
from suite.measure.precision import dtype_of
from suite.measure.rate_search import Search
from suite.measure.trace import Trace, trace_forward
from suite.rates.rate import FlopsTarget, Rate
from suite.reducers.base import Reducer


@dataclass(frozen=True)
class Implementation:
    """How a forward is written.

    autocast: weights and residual stream stay float32, products run in the precision. fused: attention is one kernel;
    else the map is in memory, as in code from before PyTorch 2.0 (March 2023).
    """

    precision: str
    autocast: bool = False
    fused: bool = True


@dataclass
class TracedModel:
    """Traces of one model, each made once; no weights and no GPU are needed."""

    name: str
    image_size: int | None = None
    traces: dict[object, Trace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shapes = ShapeModel(self.name, self.image_size)

    @property
    def model(self) -> nn.Module:
        return self.shapes.model

    def solve(self, reducer: Reducer, target: FlopsTarget) -> Rate:
        """The rate at which `reducer` comes closest to a change of total FLOPs. RequestError if it cannot;
        CellError for a method whose cost depends on the image."""
        if reducer.input_dependent:
            raise depends_on_the_image(reducer)
        return SearchOfShapes(self.shapes, reducer).solve(target.change).rate

    def trace(self, reducer: Reducer | None, rate: Rate | None, batch: int, how: Implementation) -> Trace:
        """The kernels of a forward with `reducer` at a rate; None: of the unreduced model.

        CellError for a method whose kernels depend on the image.
        """
        key = (reducer, rate, batch, how)
        if key not in self.traces:
            self.traces[key] = self._trace(reducer, rate, batch, how)
        return self.traces[key]

    def _trace(self, reducer: Reducer | None, rate: Rate | None, batch: int, how: Implementation) -> Trace:
        precision = "fp32" if how.autocast else how.precision
        with written_out(self.model, not how.fused), autocast(how.precision if how.autocast else None):
            if reducer is None:
                return trace_forward(self.model, batch, precision)
            try:
                with attach(self.model, reducer, rate):
                    return trace_forward(self.model, batch, precision)
            except DataDependentOutputException as error:
                raise depends_on_the_image(reducer) from error


def depends_on_the_image(reducer: Reducer) -> CellError:
    return CellError(f"what {reducer.name} launches depends on the image; it can only be measured")


class SearchOfShapes(Search):
    """A search over what a model of shapes costs."""

    def __init__(self, shapes: ShapeModel, reducer: Reducer) -> None:
        super().__init__(shapes.model, reducer)
        self.shapes = shapes

    def macs(self, step: int) -> int:
        schedule = self.schedule(step)
        if schedule not in self._macs:
            self._macs[schedule] = self.shapes.count(self.reducer, self.rate(step), {}).macs
        return self._macs[schedule]


@contextmanager
def written_out(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Attention of a timm model as a product, a softmax and a product meanwhile."""
    fused = [module for module in model.modules() if wanted and vars(module).get("fused_attn")]
    try:
        for module in fused:
            vars(module)["fused_attn"] = False
        yield
    finally:
        for module in fused:
            vars(module)["fused_attn"] = True


@contextmanager
def autocast(precision: str | None) -> Iterator[None]:
    """What torch.autocast does on a GPU, which refuses where there is none."""
    if precision is None:
        yield
        return
    torch.set_autocast_dtype("cuda", dtype_of(precision))
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()
