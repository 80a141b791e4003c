"""Images per second of reducers beside the unreduced model, interleaved so that both see the same machine.

A round times the unreduced model first and last and every cell in between, in random order. A cell's speed-up is
its ratio to the same round's baseline; the two baseline blocks of a round give the A/A ratio, which is what
nothing at all looks like on this machine.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from suite.attach import Handle, attach, handle_of
from suite.errors import RequestError
from suite.measure import machine
from suite.measure.compiled import compiled_copy, recompile_limit
from suite.measure.dispatch import attention_kernels
from suite.measure.memory import peak_memory_bytes
from suite.measure.precision import dtype_of, in_precision
from suite.measure.timing import Interval, host_share, interval_of, is_out_of_memory, time_block, warm_up

BASELINE = "none"
HOST_BOUND = 0.95
RETRIES = 2

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SpeedResult:
    """Speed of one cell. Without a measurement the numbers are None and `note` says why.

    rounds: per round, images/s of the cell and of the unreduced model beside it. im_s, speedup: median over the
    rounds; low, high: 95 % (`timing.interval_of`). aa: the unreduced model against itself. noisy: the A/A interval
    reaches beyond ±1 % on a GPU, ±2 % on a CPU (or there is none). attention: kernels that ran, with their calls.
    top1_agreement: share of the timed batch that got the same class in an untimed eager forward. compile_s: the
    first compiled call. host_share: CPU launch time / time of a forward on a GPU.
    """

    device: str
    batch_size: int
    precision: str
    compile: bool
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
    top1_agreement: float | None = None
    iterations_per_block: int | None = None
    compile_s: float | None = None
    host_share: float | None = None
    threads: int | None = None
    load_average: float | None = None
    gpu: dict[str, Any] | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Variant:
    """The unreduced model, or one cell, ready to be timed."""

    name: str
    model: nn.Module
    handle: Handle | None
    forward: Callable[[Tensor], Any]
    iterations: int = 1
    seconds: list[float] = field(default_factory=list)
    expected: Tensor | None = None
    output: Any = None
    attention: str | None = None
    compile_s: float | None = None
    host_share: float | None = None
    failed: str | None = None
    notes: list[str] = field(default_factory=list)

    def running(self) -> Any:
        """Context in which `model` is this variant. A compiled copy always is."""
        return nullcontext() if self.handle is None or self.forward is not self.model else self.handle


def measure_speed(
    model: nn.Module,
    images: Tensor,
    handles: Mapping[str, Handle] | Sequence[str],
    *,
    precision: str = "fp32",
    compile: bool = False,
    rounds: int = 5,
    min_block_s: float | None = None,
    warmup_s: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, SpeedResult]:
    """Time cells and the unreduced model on one batch.

    Args:
        model: a backbone; every handle is attached for its blocks alone, and all is put back at the end.
        images: (B, 3, H, W) real images, preprocessed. Input-dependent reducers do other work on noise.
        handles: by name, handles made by `attach` on this model; or reducers at rates, such as ["tome r=13"].
        precision: 'fp32', or 'fp16' / 'bf16': weights and images converted, as `model.half()` does; no autocast.
        compile: `torch.compile` for the unreduced model and the cells alike, each on a copy that shares the weights.
        min_block_s: seconds a block lasts at least; default 3 on a GPU, 1 on a CPU.
        warmup_s: seconds of warm-up before the first block of each cell; default 3 on a GPU, 0.5 on a CPU.
        progress: called with (blocks done, blocks in all, what is running).

    Returns one result per name, and the unreduced model's own under 'none'.
    Raises RequestError for a handle of another model, a name twice, or an unknown precision.
    """
    dtype_of(precision)
    if rounds < 1:
        raise RequestError(
            f"rounds={rounds}: at least one round is needed, and five for an interval worth printing"
        )
    cells = _handles(model, handles)
    device = next(model.parameters(), images).device
    on_gpu = device.type == "cuda"
    block_s = (3.0 if on_gpu else 1.0) if min_block_s is None else min_block_s
    settle_s = (3.0 if on_gpu else 0.5) if warmup_s is None else warmup_s
    shared = {
        "device": machine.device_name(device),
        "batch_size": len(images),
        "precision": precision,
        "compile": compile,
        "threads": None if on_gpu else torch.get_num_threads(),
    }
    modules = [model, *(handle.reducer for handle in cells.values())]
    with _detached_in_eval(model), in_precision(modules, precision), recompile_limit(len(cells) + 1):
        images = images.to(device=device, dtype=dtype_of(precision))
        variants = [_Variant(BASELINE, model, None, model)]
        variants += [_Variant(name, model, handle, model) for name, handle in cells.items()]
        for variant in variants:
            _prepare(variant, images, compile, settle_s, block_s)
        baseline, ready = variants[0], [v for v in variants[1:] if v.failed is None]
        if baseline.failed is None:
            _run_rounds(baseline, ready, images, rounds, random.Random(seed), progress)
        shared |= {"load_average": machine.load_average(), "gpu": machine.gpu_state(device.index) if on_gpu else None}
        notes = _gpu_company(device)
        return {v.name: _result(v, baseline, images, shared, notes) for v in variants}


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
def _detached_in_eval(model: nn.Module):
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


def _prepare(variant: _Variant, images: Tensor, compile: bool, settle_s: float, block_s: float) -> None:
    """Untimed forward, compilation, warm-up and the number of iterations a block needs."""
    try:
        with variant.running(), torch.no_grad():
            variant.expected = _classes(variant.model(images))
            variant.attention = attention_kernels(variant.model, images[:1])
            if compile:
                variant.forward = compiled_copy(variant.model)
        if compile:
            start = time.perf_counter()
            with torch.inference_mode():
                variant.forward(images)
            variant.compile_s = time.perf_counter() - start
        with variant.running():
            pace = warm_up(variant.forward, images, settle_s)
            variant.host_share = host_share(variant.forward, images)
        variant.iterations = max(1, ceil(block_s / pace))
    except Exception as error:
        if is_out_of_memory(error):
            variant.failed = _out_of_memory(variant, images)
        elif compile and variant.forward is not variant.model:
            reason = next(iter(str(error).strip().splitlines()), "")
            variant.failed = f"torch.compile failed: {type(error).__name__}: {reason}"
        else:
            raise


def _out_of_memory(variant: _Variant, images: Tensor) -> str:
    """What ran instead. A smaller batch is named and never timed: its images/s would not compare."""
    batch = len(images) // 2
    while batch:
        try:
            with variant.running(), torch.inference_mode():
                variant.forward(images[:batch])
            return f"OOM at batch {len(images)}; largest that ran: {batch}"
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        batch //= 2
    return f"OOM at batch {len(images)}, and at every smaller one"


def _run_rounds(
    baseline: _Variant,
    cells: list[_Variant],
    images: Tensor,
    rounds: int,
    order: random.Random,
    progress: Progress | None,
) -> None:
    done, blocks = 0, rounds * (len(cells) + 2)
    for _ in range(rounds):
        shuffled = order.sample(cells, len(cells))
        for variant in (baseline, *shuffled, baseline):
            if progress is not None:
                progress(done, blocks, variant.name)
            _run_block(variant, images)
            done += 1
    if progress is not None:
        progress(done, blocks, "")


def _run_block(variant: _Variant, images: Tensor) -> None:
    """One block; on a GPU that slowed itself down in it, again."""
    for attempt in range(RETRIES + 1):
        with variant.running():
            seconds, variant.output = time_block(variant.forward, images, variant.iterations)
        slowed = machine.slowdowns(machine.gpu_state(images.device.index)) if images.is_cuda else []
        if not slowed or attempt == RETRIES:
            break
    variant.seconds.append(seconds)
    if slowed:
        variant.notes.append(f"the GPU slowed itself down: {', '.join(slowed)}")


def _result(
    variant: _Variant, baseline: _Variant, images: Tensor, shared: dict[str, Any], notes: list[str]
) -> SpeedResult:
    failed = variant.failed
    if failed is None and baseline.failed is not None:
        failed = f"the unreduced model has no speed to compare with: {baseline.failed}"
    measured = {"attention": variant.attention, "compile_s": variant.compile_s, "host_share": variant.host_share}
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
        # a compiled CPU kernel keeps its buffers to itself, and would be reported as free
        blind = shared["compile"] and images.device.type == "cpu"
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
        top1_agreement=_agreement(variant.expected, _classes(variant.output)),
        iterations_per_block=variant.iterations,
        note="; ".join(dict.fromkeys([*notes, *variant.notes])) or None,
    )


def _noisy(aa: Interval, tolerance: float) -> bool:
    return aa.low is None or aa.high is None or aa.low < 1 - tolerance or aa.high > 1 + tolerance


def _classes(output: Any) -> Tensor | None:
    """(B,) class of the highest logit; None when the model does not give (B, K) logits."""
    logits = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
    return logits.argmax(-1) if logits is not None and logits.dim() == 2 else None


def _agreement(expected: Tensor | None, timed: Tensor | None) -> float | None:
    return None if expected is None or timed is None else (expected == timed).float().mean().item()


def _gpu_company(device: torch.device) -> list[str]:
    count = machine.gpu_processes(device.index) if device.type == "cuda" else None
    return [f"{count - 1} other process(es) on the GPU"] if count is not None and count > 1 else []
