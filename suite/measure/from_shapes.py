"""What a model costs, from shapes alone: tensors without numbers run through it; no weights, no arithmetic.

The operators that are dispatched are counted as `suite.measure.dispatch` counts them; the closed form of the token
counts that were observed stands beside.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from suite.attachment.handle import Handle
from suite.backbones import backbone_of, family_of
from suite.backbones.block import BlockTrace
from suite.errors import CellError
from suite.measure.closed_form import closed_form
from suite.measure.dispatch import count_macs_fast
from suite.measure.flops_target import attach
from suite.measure.formula import base_macs
from suite.models.registry import CLASSIFIER, find_entry
from suite.rates.rate import Rate
from suite.reducers.base import Reducer
from suite.tokens.layout import Layout


@dataclass(frozen=True)
class ShapeCount:
    """Multiply-accumulates per image.

    macs: everything that is dispatched; of a method that looks at numbers although its counts are fixed (DiffRate), the
    closed form. closed_form: without what the method itself computes.
    """

    macs: int
    closed_form: int
    layout: Layout
    trace: tuple[BlockTrace, ...]


class ShapeModel:
    """A model known by name that has shapes and no weights; of captioners and segmenters, the backbone."""

    def __init__(self, name: str, image_size: int | None = None) -> None:
        with torch.device("meta"):
            self.model = backbone_of(build(name, image_size)).eval().requires_grad_(False)
        # a method's own weights are real: attaching moves them to where the model is, which shapes cannot do
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        family = family_of(self.model)
        with self.mode:
            self.model.to_empty(device="cpu")
            self.image = torch.empty(1, family.channels(self.model), *family.image_size(self.model))

    def count(self, reducer: str | Reducer, rate: str | Rate | None, options: Mapping[str, Any]) -> ShapeCount:
        """Cost of the model with a reducer at a rate.

        CellError for a method whose cost depends on the image. RequestError for a rate or an
        option that it does not take.
        """
        with attach(self.model, reducer, rate, **options) as handle:
            try:
                with self.mode, warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # of tensors without numbers, that they have none
                    macs, trace = count_macs_fast(self.model, self.image), tuple(handle.trace)
                base = closed_form(self.model, handle.family, (int(self.image.shape[2]), int(self.image.shape[3])))
            except DataDependentOutputException as error:
                if handle.reducer.input_dependent:
                    raise CellError(f"what {reducer} costs depends on the image") from error
                trace, macs = planned_trace(handle), None
                base = base_macs(handle.images.layout(), trace, handle.restoring == "per_block")
            if base is None:
                raise CellError(f"{type(self.model).__name__} does not say how long a prompt is")
            return ShapeCount(base.total if macs is None else macs, base.total, handle.images.layout(), trace)


def planned_trace(handle: Handle) -> tuple[BlockTrace, ...]:
    """What the blocks will run on, as the schedule has it, of a method that acts before the MLP or the block."""
    counts = handle.schedule(handle.layout.tokens).counts
    entering = (handle.layout.tokens, *counts[:-1])
    attended = counts if handle.reducer.site == "before_block" else entering
    return tuple(map(BlockTrace.plain, attended, counts, entering))


def build(name: str, image_size: int | None = None) -> nn.Module:
    """The model of a name, with whatever weights the device in force gives it."""
    entry = find_entry(name)
    return entry.make(**({"img_size": image_size} if image_size and entry.kind == CLASSIFIER else {}))
