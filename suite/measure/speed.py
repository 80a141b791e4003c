"""Images per second of reducers beside the unreduced model, interleaved so that both see the same machine.

A round times the unreduced model first and last and every cell in between, in random order. A cell's speed-up is
its ratio to the same round's baseline; the two baseline blocks of a round give the A/A ratio, which is what
nothing at all looks like on this machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from suite.attachment.handle import Handle, handle_of
from suite.backbones import backbone_of
from suite.contract.baseline import BASELINE
from suite.errors import RequestError
from suite.measure import machine
from suite.measure.flops_target import attach
from suite.measure.memory import peak_memory_bytes
from suite.measure.precision import dtype_of, in_precision
from suite.measure.runtimes import EAGER, flag_of, make_runtime
from suite.measure.timing import Interval, interval_of, time_block
from suite.measure.variant import Variant, answers_of, attempt, make_ready

HOST_BOUND = 0.95
RETRIES = 2

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SpeedResult:
    """Speed of one cell. Without a measurement the numbers are None and `note` says why.

    rounds: per round, images/s of the cell and of the unreduced model beside it. im_s, speedup: median over the
    rounds; low, high: 95 % (`timing.interval_of`). aa: the unreduced model against itself. noisy: the A/A interval
    reaches beyond ±1 % on a GPU, ±2 % on a CPU (or there is none). attention: kernels that ran, with their calls.
    agreement: share of the timed batch that came to the same class or caption in an untimed eager forward. compile:
    `runtimes.flag_of` how it was run. compile_s: seconds that preparing took. host_share: CPU launch time / time of a
    forward on a GPU.
    """

    device: str
    batch_size: int
    precision: str
    compile: bool | str
    attention: str | None = None
    rounds: list[dict[str, float]] = field(default_factory=list)
    im_s: float | None = None
    im_s_low: float | None = None
    im_s_high: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    aa_low: float | None = None
    aa_high: float | None = None
    noisy: bool = True
    peak_memory_bytes: int | None = None
    agreement: float | None = None
    iterations_per_block: int | None = None
    compile_s: float | None = None
    host_share: float | None = None
    threads: int | None = None
    load_average: float | None = None
    gpu: dict[str, Any] | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_speed(
    model: nn.Module,
    images: Tensor,
    handles: Mapping[str, Handle] | Sequence[str],
    *,
    precision: str = "fp32",
    runtime: str = EAGER,
    rounds: int = 5,
    min_block_s: float | None = None,
    warmup_s: float | None = None,
    seed: int = 0,
    run: Callable[[Tensor], Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, SpeedResult]:
    """Time cells and the unreduced model on one batch.

    Args:
        model: a backbone, or a model around one, of which the backbone is timed; every handle is attached for its
            blocks alone, and all is put back at the end.
        images: (B, 3, H, W) real images, preprocessed. Input-dependent reducers do other work on noise.
        handles: by name, handles made by `attach` on this model; or reducers at rates, such as ["tome r=13"].
        precision: 'fp32', or 'fp16' / 'bf16': weights and images converted, as `model.half()` does; no autocast.
        runtime: how the unreduced model and the cells alike are run, such as 'compiled' (`measure.runtimes`).
        min_block_s: seconds a block lasts at least; default 3 on a GPU, 0.25 on a CPU.
        warmup_s: seconds of warm-up before the first block of each cell; default 3 on a GPU, 0.25 on a CPU.
        run: what is timed with each handle attached in turn, of a model that is part of a larger whole; always eager,
            and on a CPU without its memory. Default: the model.
        progress: called with (blocks done, blocks in all, what is running).

    Returns one result per name, and the unreduced model's own under 'none'.
    Raises RequestError for a handle of another model, a name twice, or an unknown precision or runtime.
    """
    dtype_of(precision)
    how = make_runtime(EAGER if run else runtime)
    whole, model = model, backbone_of(model)
    if rounds < 1:
        raise RequestError(f"rounds={rounds}: at least one round is needed, and five for an interval worth printing")
    cells = _handles(model, handles)
    device = next(model.parameters(), images).device
    on_gpu = device.type == "cuda"
    block_s = (3.0 if on_gpu else 0.25) if min_block_s is None else min_block_s
    settle_s = (3.0 if on_gpu else 0.25) if warmup_s is None else warmup_s
    shared = {
        "device": machine.device_name(device),
        "batch_size": len(images),
        "precision": precision,
        "compile": flag_of(how.name),
        "threads": None if on_gpu else torch.get_num_threads(),
    }
    modules = [whole, *(handle.reducer for handle in cells.values())]
    with _detached_in_eval(whole), in_precision(modules, precision), how.hold(len(cells) + 1):
        images = images.to(device=device, dtype=dtype_of(precision))
        todo = {BASELINE: None} | cells
        variants = [Variant(name, model, handle, how, run) for name, handle in todo.items()]
        report = progress or (lambda *_: None)
        for variant in variants:
            report(0, rounds * (len(variants) + 1), f"warming up {variant.name}")
            make_ready(variant, images, settle_s, block_s)
        baseline, ready = variants[0], [v for v in variants[1:] if v.failed is None]
        if baseline.failed is None:
            _run_rounds(baseline, ready, images, rounds, random.Random(seed), report)
        shared |= {"load_average": machine.load_average(), "gpu": machine.gpu_state(device.index) if on_gpu else None}
        notes = _gpu_company(device)
        # on a CPU: a compiled kernel keeps its buffers to itself, and would be reported as free; and to follow every
        # operator of a whole model takes longer than all rounds
        blind = device.type == "cpu" and (how.compiler is not None or run is not None)
        return {v.name: _result(v, baseline, images, shared, notes, blind) for v in variants}


def _handles(model: nn.Module, handles: Mapping[str, Handle] | Sequence[str]) -> dict[str, Handle]:
    """By name, handles on `model`; made here, and detached, where they are given as 'reducer rate'."""
    if not isinstance(handles, Mapping):
        if len(set(handles)) < len(handles):
            raise RequestError(f"cells {list(handles)}: every reducer and rate is timed once, one is named twice")
        made = {}
        with _detached_in_eval(model):
            for text in handles:
                name, _, rate = text.strip().partition(" ")
                made[text] = attach(model, name, rate.strip() or None)
                made[text].detach()
        handles = made
    for name, handle in handles.items():
        if handle.model is not model:
            raise RequestError(f"cell {name!r}: its reducer was attached to another model than the one to be timed")
    if BASELINE in handles:
        raise RequestError(f"cell {BASELINE!r}: the unreduced model is always timed and has this name; use another")
    return dict(handles)


@contextmanager
def _detached_in_eval(model: nn.Module) -> Iterator[None]:
    """The bare model in eval mode; what was attached and every module's mode come back at the end."""
    attached = handle_of(model)
    modes = [(module, module.training) for module in model.modules()]
    if attached is not None:
        attached.detach()
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
        if attached is not None:
            attached.attach()


def _run_rounds(
    baseline: Variant, cells: list[Variant], images: Tensor, rounds: int, order: random.Random, progress: Progress
) -> None:
    done, blocks = 0, rounds * (len(cells) + 2)
    for _ in range(rounds):
        shuffled = order.sample(cells, len(cells))
        for variant in (baseline, *shuffled, baseline):
            progress(done, blocks, variant.name)
            if variant.failed is None:
                attempt(variant, images, partial(_run_block, variant, images))
            done += 1
    progress(done, blocks, "")


def _run_block(variant: Variant, images: Tensor) -> None:
    """One block; on a GPU that slowed itself down in it, again."""
    for tries_left in reversed(range(RETRIES + 1)):
        with variant.running():
            seconds, output = time_block(variant.forward, images, variant.iterations)
        slowed = machine.slowdowns(machine.gpu_state(images.device.index)) if images.is_cuda else []
        if not slowed or not tries_left:
            break
    variant.seconds.append(seconds)
    variant.output = answers_of(output)
    if slowed:
        variant.notes.append(f"the GPU slowed itself down: {', '.join(slowed)}")


def _result(
    variant: Variant, baseline: Variant, images: Tensor, shared: dict[str, Any], notes: list[str], blind: bool
) -> SpeedResult:
    failed = variant.failed
    if failed is None and baseline.failed is not None:
        failed = f"the unreduced model has no speed to compare with: {baseline.failed}"
    compile_s = variant.prepared.seconds if variant.prepared else None
    measured: dict[str, Any] = {
        "attention": variant.attention,
        "compile_s": compile_s,
        "host_share": variant.host_share,
    }
    if failed is not None:
        return SpeedResult(**shared, **measured, note=failed)
    first, last = baseline.seconds[::2], baseline.seconds[1::2]
    beside = [(a + b) / 2 for a, b in zip(first, last)]
    own = beside if variant is baseline else variant.seconds
    pace = interval_of([len(images) / s for s in own])
    speedup = interval_of([b / s for b, s in zip(beside, own)])
    aa = interval_of([a / b for a, b in zip(first, last)])
    if variant.host_share is not None and variant.host_share > HOST_BOUND:
        notes = [*notes, f"host-bound: launching takes {variant.host_share:.0%} of a forward"]
    with variant.running():
        peak = None if blind else peak_memory_bytes(variant.forward, images, variant.model)
    return SpeedResult(
        **shared,
        **measured,
        rounds=[{"im_s": len(images) / s, "baseline_im_s": len(images) / b} for s, b in zip(own, beside)],
        im_s=pace.median,
        im_s_low=pace.low,
        im_s_high=pace.high,
        speedup=speedup.median,
        speedup_low=speedup.low,
        speedup_high=speedup.high,
        aa_low=aa.low,
        aa_high=aa.high,
        noisy=_noisy(aa, 0.01 if images.is_cuda else 0.02),
        peak_memory_bytes=peak,
        agreement=_agreement(variant.expected, variant.output),
        iterations_per_block=variant.iterations,
        note="; ".join(dict.fromkeys([*notes, *variant.notes])) or None,
    )


def _noisy(aa: Interval, tolerance: float) -> bool:
    return aa.low is None or aa.high is None or aa.low < 1 - tolerance or aa.high > 1 + tolerance


def _agreement(expected: list[Any] | None, timed: list[Any] | None) -> float | None:
    if not expected or timed is None:
        return None
    return sum(a == b for a, b in zip(expected, timed, strict=True)) / len(expected)


def _gpu_company(device: torch.device) -> list[str]:
    count = machine.gpu_processes(device.index) if device.type == "cuda" else None
    return [f"{count - 1} other process(es) on the GPU"] if count is not None and count > 1 else []
