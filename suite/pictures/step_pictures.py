"""Pictures of what methods make of the tokens of pictures that are being drawn, step by step, of a task's samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from reports.pictures.step_sheet import step_columns, step_image
from reports.pictures.token_sheet import TokenImage, write_tokens
from suite.attachment.handle import Handle
from suite.backbones import family_of
from suite.backbones.branched import DenoiserFamily
from suite.contract.baseline import BASELINE
from suite.contract.task import Sample
from suite.errors import RequestError, unknown
from suite.measure.precision import dtype_of
from suite.pictures.blocks import blocks_of
from suite.pictures.step_maps import SHOWN, StepMaps, blocks_in_scope, spaced, step_maps
from suite.rates.rate import rate_text
from suite.sweep.engine import SOLVED_ON
from suite.sweep.images import sample_images
from suite.sweep.plan import Plan, make_plan, resolve_device
from suite.sweep.spec import make_spec
from tasks.generation.task import GenerationTask, levels_of

RATE = "r=0.5"  # where none is named


def write_step_pictures(
    values: dict[str, Any], file: Path, *, samples: Sequence[str] = (), blocks: str = ""
) -> list[str]:
    """Write `file`: samples of a task that draws, under every method at every rate that `values` (keys of RunSpec) ask
    for: the picture that came of it, and beside it the groups, a column a step, a row a block.

    samples: ids; none: the first of the task's. blocks: '1,8' (from 1), 'all'; '': four of those in scope. Returns
    notes, such as methods that were left out. RequestError for an unknown sample, and a block that no rate acts in.
    """
    if not (values.get("rates") or values.get("flops") or values.get("cells")):
        values = {**values, "rates": RATE}
    plan = make_plan(make_spec(values))
    if not any(method.reducer != BASELINE for method in plan.methods.values()):
        raise RequestError("no method is left to draw; name one with --reducers")
    known = {sample.id: sample for sample in plan.task.samples}
    for id in samples:
        if id not in known:
            raise unknown(f"sample of task {plan.spec.task!r}:", id, known)
    chosen = [known[id] for id in samples] or list(plan.task.samples[:1])
    shown = shown_blocks(plan, blocks)
    plan.model.to(resolve_device(plan.spec.device), dtype_of(plan.spec.precision))
    drawn: list[TokenImage] = []
    maps: list[StepMaps] = []
    for key, method in plan.methods.items():
        if method.reducer == BASELINE:
            continue
        rate = plan.rate_of(key, lambda: sample_images(plan, SOLVED_ON))
        with plan.handle(method, rate) as handle:
            pictures, found = draw_with_maps(plan, handle, chosen, shown)
        name = " ".join(dict.fromkeys(filter(None, (method.reducer, rate_text(method.rate), rate_text(rate)))))
        maps.append(found)
        drawn += [
            step_image(f"{sample.id}, {name}", picture, found.owners[:, :, i], found.tokens, found.grid)
            for i, (sample, picture) in enumerate(zip(chosen, pictures, strict=True))
        ]
    heading = f"{plan.spec.model}, weights: {plan.weights.source}: what a branch ran on"
    write_tokens(drawn, step_columns(maps[0].steps, maps[0].of), [f"block {block}" for block in shown], heading, file)
    return plan.skipped


def shown_blocks(plan: Plan, asked: str = "") -> list[int]:
    """Those asked for, or some of those in scope. RequestError for one in which no rate acts."""
    known = blocks_in_scope(plan.model)
    if not known:
        raise RequestError("no block is in scope, so there are no groups to show; ask for a larger max_downsample")
    if asked in ("", "all"):
        return known if asked else spaced(known, SHOWN)
    blocks = blocks_of(asked, max(known))
    for block in blocks:
        if block not in known:
            listed = ", ".join(map(str, known))
            raise RequestError(f"block {block} keeps all its tokens at every rate; those in scope are {listed}")
    return blocks


def draw_with_maps(
    plan: Plan, handle: Handle, samples: Sequence[Sample], blocks: Sequence[int]
) -> tuple[list[np.ndarray], StepMaps]:
    """Pictures (H, W, 3) uint8 of the samples, and the groups of their tokens while they were drawn in one batch."""
    task, model = cast(GenerationTask, plan.task), plan.model
    preprocessing, like = task.preprocessing(model, plan.spec.image_size), next(model.parameters())
    noise = torch.stack([task.load(sample, preprocessing) for sample in samples]).to(like.device, like.dtype)
    drawn: list[Tensor] = []

    def draw() -> None:
        drawn.append(task.drawn_levels(model, noise, samples))

    drawing: Any = model
    with torch.inference_mode():
        maps = step_maps(handle, draw, len(samples), wanted_first=drawing.wanted_first, blocks=blocks)
        handle.forget()
    return list(levels_of(drawn[0]).permute(0, 2, 3, 1).cpu().numpy()), maps


def draws(plan: Plan) -> bool:
    """Whether the plan is of pictures that a denoiser draws."""
    return isinstance(plan.task, GenerationTask) and isinstance(family_of(plan.backbone), DenoiserFamily)
