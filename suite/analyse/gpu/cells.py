"""One cell: the rate that reaches its target, what its forward launches, and what is predicted of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from suite.analyse.gpu.stages import GRAPHS, Ask, Trial
from suite.attachment.handle import Handle
from suite.backbones import family_of
from suite.errors import RequestError, describe_error
from suite.measure.flops import smooth_image
from suite.measure.flops_target import attach, solve_rate
from suite.measure.kernels import Trace
from suite.measure.prediction.cost import BOUNDS, HOST, predict_forward
from suite.measure.prediction.fitted import load_fit
from suite.measure.prediction.gpus import GPUS
from suite.measure.prediction.shapes import Implementation, TracedModel
from suite.measure.runtimes import EAGER
from suite.models.load import load_model
from suite.rates.rate import FlopsTarget, Rate, parse_rate
from suite.reducers import make_reducer

PICTURES = 8  # different ones in a batch

DEVICES = {
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA A100-SXM4-80GB": "a100",
    "Tesla V100-SXM2-32GB": "v100",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 4090": "rtx4090",
    "NVIDIA GeForce RTX 3090": "rtx3090",
    "NVIDIA GeForce RTX 3080": "rtx3080",
    "Orin": "jetson-orin",
}
"""Names of CUDA devices, and which data sheet is theirs. Others of a series have other clocks: none is guessed."""


@dataclass(frozen=True)
class Planned:
    """A method at a rate. trace: None where what is launched depends on the image."""

    method: str
    rate: Rate
    trace: Trace | None


@dataclass
class TimedModel:
    """A model with random weights, and the same as shapes. planned: what was worked out of its cells, or why that is
    impossible: all its runtimes go by it."""

    name: str
    trial: Trial
    device: torch.device
    planned: dict[Ask, Planned | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model: nn.Module = load_model(self.name, "none")[0]
        self.shapes, self.how = TracedModel(self.name), Implementation(self.trial.precision)
        size = family_of(self.model).image_size(self.model)
        several = torch.cat([smooth_image(size, seed) for seed in range(PICTURES)])
        self.images: Tensor = several[torch.arange(self.trial.batch_size) % PICTURES]

    @contextmanager
    def on_device(self) -> Iterator[Tensor]:
        """Context in which the model is there, and its images (B, 3, H, W), which are given: two models there at once
        would each count as the other's memory."""
        self.model.to(self.device)
        try:
            yield self.images.to(self.device)
        finally:
            self.model.to("cpu")

    @property
    def unreduced(self) -> Trace:
        return self.shapes.trace(None, None, self.trial.batch_size, self.how)

    def plan(self, ask: Ask) -> Planned | str:
        if ask not in self.planned:
            try:
                self.planned[ask] = self._plan(ask)
            except Exception as error:  # what a method's own code raises; the others go on
                self.planned[ask] = describe_error(error)
        return self.planned[ask]

    def _plan(self, ask: Ask) -> Planned:
        reducer, target = make_reducer(ask.method), parse_rate(ask.target)
        if not isinstance(target, FlopsTarget):
            raise RequestError(f"target {ask.target!r} cannot be read; write flops=-35%")
        if reducer.input_dependent:
            few = self.images[:PICTURES].to(self.device)
            return Planned(ask.method, solve_rate(self.model, ask.method, flops=target, images=few).rate, None)
        rate = self.shapes.solve(reducer, target)
        return Planned(ask.method, rate, self.shapes.trace(reducer, rate, self.trial.batch_size, self.how))

    def handle(self, planned: Planned) -> Handle:
        """What is timed, detached. What there is to train is untrained."""
        with attach(self.model, planned.method, planned.rate) as handle:
            return handle


def predict_cell(
    trace: Trace | None, unreduced: Trace, runtime: str, gpu: str | None, batch_size: int, precision: str
) -> dict[str, Any]:
    """What `predict` knows of a cell on a GPU, with bands; None each where it knows nothing, and `reason` says why.

    gpu: a key of GPUS. Graphs take the GPU's time alone, for the CPU launches only one.
    """
    keys = ("ms", "im_s", "im_s_low", "im_s_high", "speedup", "speedup_low", "speedup_high", "efficiency", "binds")
    found: dict[str, Any] = {"gpu": gpu, **dict.fromkeys(keys), "reason": None}
    if gpu is None:
        return found | {"reason": "no data sheet is known to be this GPU's; --gpu names one"}
    if trace is None:
        return found | {"reason": "what it launches is not known: no rate was found, or it depends on the image"}
    if runtime not in (EAGER, GRAPHS):
        return found | {"reason": "what a compiler makes of the kernels is not predicted"}
    try:
        units = GPUS[gpu].units(precision)
    except RequestError as error:
        return found | {"reason": str(error)}
    fit = load_fit()
    roofline = fit.reach.roofline(GPUS[gpu], precision)
    forward, plain = (predict_forward(each, roofline) for each in (trace, unreduced))
    on_gpu = runtime == GRAPHS
    seconds, beside = (each.gpu_s if on_gpu else each.seconds for each in (forward, plain))
    speedup, im_s = beside / seconds, batch_size / seconds
    binds = max(BOUNDS, key=forward.shares.__getitem__) if on_gpu else forward.binds
    found |= {"ms": 1e3 * seconds, "im_s": im_s, "binds": binds}
    if trace is not unreduced:
        found |= {"speedup": speedup, "efficiency": speedup * trace.macs / unreduced.macs}
    if on_gpu or HOST not in (forward.binds, plain.binds):  # no published speed checks what the host decides
        found |= around("im_s", im_s, fit.speed_band(gpu, units).factor)
        if trace is not unreduced:
            found |= around("speedup", speedup, fit.speedup_band(gpu, units).factor)
    return found


def around(name: str, value: float, factor: float) -> Mapping[str, float]:
    return {f"{name}_low": value / factor, f"{name}_high": value * factor}


def sums_of(trace: Trace | None) -> dict[str, int] | None:
    names = ("launches", "moved", "macs", "host_reads", "peak")
    return None if trace is None else {name: getattr(trace, name) for name in names}
