"""What is exported: a model with one method attached, and the pictures that its files are checked with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from suite.attachment.handle import Handle
from suite.backbones import backbone_of
from suite.contract.baseline import BASELINE
from suite.contract.task import ReadError, Sample, Task, views_of
from suite.errors import RequestError
from suite.formats.program import check_exportable
from suite.measure.flops_target import attach
from suite.models.load import load_model
from suite.models.weights_file import WeightsInfo
from suite.sweep.cells import expand
from suite.sweep.methods import MethodAtRate
from suite.sweep.plan import check_base, make_task
from suite.sweep.spec import RunSpec, make_spec

CALIBRATION_SEED = 0


@dataclass(frozen=True)
class Subject:
    """spec: what was asked. method: None of the unreduced model. handle: detached. labelled: the task's labels are
    classes of the model, so that accuracy has a meaning."""

    spec: RunSpec
    model: nn.Module
    weights: WeightsInfo
    task: Task
    method: MethodAtRate | None
    handle: Handle | None
    labelled: bool

    @property
    def reducer(self) -> str:
        return self.method.reducer if self.method else BASELINE

    @property
    def preprocessing(self) -> Any:
        return self.task.preprocessing(self.model, self.spec.image_size)

    def logits(self, images: Tensor, batch: int = 16) -> Tensor:
        """(N, 3, H, W) -> (N, classes) of the reduced model as PyTorch runs it."""
        if self.handle is not None:
            self.handle.attach()
        try:
            with torch.inference_mode():
                return torch.cat([self.model(part) for part in images.split(batch)])
        finally:
            if self.handle is not None:
                self.handle.detach()

    def pictures(self, count: int) -> tuple[Tensor, list[Sample]]:
        """Up to `count` preprocessed images (N, 3, H, W), evenly spaced over the task's, with their samples."""
        samples = self.task.samples
        return self._stack(samples[:: max(1, len(samples) // count)], count)

    def calibration(self, count: int) -> Tensor:
        """(N, 3, H, W) images, drawn by `CALIBRATION_SEED` from what methods are trained on, else from the task's."""
        training = {"task_options": {**self.spec.task_options, **self.task.training}} if self.task.training else {}
        samples = make_task(self.spec.model_copy(update=training)).samples if training else self.task.samples
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(CALIBRATION_SEED)).tolist()
        return self._stack((samples[place] for place in order), count)[0]

    def _stack(self, samples: Iterator[Sample] | Sequence[Sample], count: int) -> tuple[Tensor, list[Sample]]:
        images: list[Tensor] = []
        read: list[Sample] = []
        for sample in samples:
            if len(images) == count:
                break
            try:
                images.append(views_of(self.task.load(sample, self.preprocessing))[0])
            except ReadError:
                continue
            read.append(sample)
        if not images:
            raise RequestError("no image can be read, so there is nothing to check an exported file with")
        return torch.stack(images), read


def make_subject(values: dict[str, Any], reducer: str, rate: str | None) -> Subject:
    """What is asked for. values: of a RunSpec. RequestError for what cannot be exported, in one line."""
    spec = make_spec({**values, "cells": [{"reducer": reducer, "rate": rate}]})
    method = next((method for method in expand(spec)[0] if method.reducer != BASELINE), None)
    task = make_task(spec)
    model, weights = load_model(spec.model, spec.checkpoint, image_size=spec.image_size)
    if backbone_of(model) is not model or getattr(model, "num_classes", None) is None:
        raise RequestError(
            f"model {spec.model!r} is no classifier, and only those are exported: one forward from images to logits"
        )
    try:
        task.check_model(model)
        labelled = weights.kind == "trained"
    except RequestError:
        labelled = False
    handle = None
    if method is not None:
        check_base(method, spec, weights)
        handle = attach(model, method.make(), method.rate, weights=method.weights[0] if method.weights else None)
        try:
            check_exportable(model)
        finally:
            handle.detach()
    return Subject(spec, model, weights, task, method, handle, labelled)
