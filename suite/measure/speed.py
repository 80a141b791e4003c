"""Images per second of reducers beside the unreduced model, interleaved so that both see the same machine.

A round times the unreduced model first and last and every cell in between, in random order. A cell's speed-up is
its ratio to the same round's baseline; the two baseline blocks of a round give the A/A ratio, which is what
nothing at all looks like on this machine. Where there are several runtimes, all are in the same rounds, so that a
cell also has its ratio to the unreduced model under the runtime in which that is fastest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from suite.attachment.handle import Handle, handle_of
from suite.backbones import backbone_of
from suite.contract.baseline import BASELINE
from suite.errors import RequestError
from suite.measure import machine
from suite.measure.disturbed import disturbed_rounds, replace_round
from suite.measure.flops_target import attach
from suite.measure.precision import check_precision, dtype_of, float32_products, in_precision, tf32_setting
from suite.measure.runtimes import EAGER, make_runtimes
from suite.measure.runtimes.base import Runtime
from suite.measure.speed_result import SpeedResult, fastest_of, result_of
from suite.measure.timing import time_block
from suite.measure.variant import Variant, answers_of, attempt, make_ready

RETRIES = 2

Progress = Callable[[int, int, str], None]


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
        precision: 'fp32', or 'fp16' / 'bf16': weights and images converted, as `model.half()` does; no autocast;
            'tf32': float32 with products rounded to TF32.
        runtime: how the unreduced model and the cells alike are run, such as 'compiled' (`measure.runtimes`).
        min_block_s: seconds a block lasts at least; default 3 on a GPU, 0.25 on a CPU.
        warmup_s: seconds of warm-up before the first block of each cell; default 3 on a GPU, 0.25 on a CPU.
        run: what is timed with each handle attached in turn, of a model that is part of a larger whole; always eager,
            and on a CPU without its memory. Default: the model.
        progress: called with (blocks done, blocks in all, what is running).

    Returns one result per name, and the unreduced model's own under 'none'.
    Raises RequestError for a handle of another model, a name twice, an unknown precision or runtime, and one that the
    device does not have.
    """
    how: dict[str, Any] = {
        "precision": precision, "rounds": rounds, "min_block_s": min_block_s, "warmup_s": warmup_s, "seed": seed,
        "run": run, "progress": progress,
    }  # fmt: skip
    found = measure_runtimes(model, images, handles, [runtime], **how)
    return {name: result for name, results in found.items() for result in results.values()}


def measure_runtimes(
    model: nn.Module,
    images: Tensor,
    handles: Mapping[str, Handle] | Sequence[str],
    runtimes: Sequence[str],
    *,
    precision: str = "fp32",
    rounds: int = 5,
    min_block_s: float | None = None,
    least_forwards: int = 1,
    warmup_s: float | None = None,
    seed: int = 0,
    run: Callable[[Tensor], Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, SpeedResult]]:
    """The same under several runtimes, all in the same rounds: name -> runtime -> result.

    least_forwards: of each, over all rounds. Other arguments and what is raised as for `measure_speed`.
    """
    whole, model = model, backbone_of(model)
    if rounds < 1:
        raise RequestError(f"rounds={rounds}: at least one round is needed, and five for an interval worth printing")
    cells = _handles(model, handles)
    device = next(model.parameters(), images).device
    check_precision(precision, device)
    hows = make_runtimes([EAGER] if run else runtimes, device)
    on_gpu = device.type == "cuda"
    block_s = (3.0 if on_gpu else 0.25) if min_block_s is None else min_block_s
    settle_s = (3.0 if on_gpu else 0.25) if warmup_s is None else warmup_s
    modules = [whole, *(handle.reducer for handle in cells.values())]
    with ExitStack() as stack:
        for context in (_detached_in_eval(whole), in_precision(modules, precision), float32_products(precision)):
            stack.enter_context(context)
        for how in hows:
            stack.enter_context(how.hold(len(cells) + 1))
        images = images.to(device=device, dtype=dtype_of(precision))
        todo = {BASELINE: None} | cells
        variants = [Variant(name, model, handle, how, run) for name, handle in todo.items() for how in hows]
        report = progress or (lambda *_: None)
        for variant in variants:
            report(0, rounds * (len(variants) + len(hows)), f"warming up {_title(variant, hows)}")
            make_ready(variant, images, settle_s, block_s, ceil(least_forwards / rounds))
        unreduced, reduced = variants[: len(hows)], variants[len(hows) :]
        beside = dict(zip(hows, unreduced, strict=True))
        ready = [v for v in reduced if v.failed is None and beside[v.runtime].failed is None]
        running = [v for v in unreduced if v.failed is None]
        draw, blocks = random.Random(seed), rounds * (len(ready) + 2 * len(running))
        for done, variant in enumerate(_order(running, ready, rounds, draw)):
            report(done, blocks, _title(variant, hows))
            if variant.failed is None:
                attempt(variant, images, partial(_run_block, variant, images))
        again = _repeat_disturbed(running, ready, rounds, draw, images, partial(report, blocks, blocks))
        report(blocks, blocks, "")
        shared = {
            "device": machine.device_name(device),
            "batch_size": len(images),
            "precision": precision,
            "tf32": tf32_setting() if on_gpu else None,
            "threads": None if on_gpu else torch.get_num_threads(),
            "load_average": machine.load_average(),
            "gpu": machine.gpu_state(device.index) if on_gpu else None,
        }
        notes, fastest = [*_gpu_company(device), *again], fastest_of(unreduced)
        found: dict[str, dict[str, SpeedResult]] = {name: {} for name in todo}
        for v in variants:
            found[v.name][v.runtime.name] = result_of(v, beside[v.runtime], fastest, images, shared, notes)
        return found


def _title(variant: Variant, hows: Sequence[Runtime]) -> str:
    return variant.name if len(hows) == 1 else f"{variant.runtime.name} {variant.name}"


def _order(
    unreduced: Sequence[Variant], cells: Sequence[Variant], rounds: int, draw: random.Random
) -> Iterator[Variant]:
    """Round by round: the unreduced model under every runtime, the cells shuffled, the first ones in reverse."""
    for _ in range(rounds):
        yield from (*unreduced, *draw.sample(cells, len(cells)), *reversed(unreduced))


def _repeat_disturbed(
    unreduced: Sequence[Variant],
    cells: Sequence[Variant],
    rounds: int,
    draw: random.Random,
    images: Tensor,
    report: Callable[[str], None],
) -> list[str]:
    """Time each disturbed round once more, in its place; what is to be said of that."""
    timed = [variant for variant in (*unreduced, *cells) if variant.failed is None]
    disturbed = disturbed_rounds(timed, rounds)
    for number, said in disturbed.items():
        report(f"{said}: once more")
        kept = {id(variant): [*variant.blocks] for variant in timed}
        for variant in _order(unreduced, cells, 1, draw):
            if variant.failed is None:
                attempt(variant, images, partial(_run_block, variant, images))
        for variant in timed:
            before = kept[id(variant)]
            blocks, variant.blocks = variant.blocks[len(before) :], before
            if variant.failed is None:
                replace_round(variant, number, rounds, blocks)
    left = disturbed_rounds([variant for variant in timed if variant.failed is None], rounds)
    notes = [f"{said}, and that was timed again" for said in disturbed.values()]
    return notes + [f"{said} when timed again, too" for number, said in left.items() if number in disturbed]


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


def _run_block(variant: Variant, images: Tensor) -> None:
    """One block; on a GPU that slowed itself down in it, again."""
    for tries_left in reversed(range(RETRIES + 1)):
        with variant.running():
            block = time_block(variant.forward, images, variant.iterations)
        slowed = machine.slowdowns(machine.gpu_state(images.device.index)) if images.is_cuda else []
        if not slowed or not tries_left:
            break
    variant.blocks.append(replace(block, output=None))
    variant.output = answers_of(block.output)
    if slowed:
        variant.notes.append(f"the GPU slowed itself down: {', '.join(slowed)}")


def _gpu_company(device: torch.device) -> list[str]:
    count = machine.gpu_processes(device.index) if device.type == "cuda" else None
    return [f"{count - 1} other process(es) on the GPU"] if count is not None and count > 1 else []
