"""What a model costs, in multiply-accumulates per image (1 MAC = 1 FLOP), whatever attention kernel it runs.

Three opinions on every count: fvcore's tracer with our handles (the figure that is reported, split into parts),
`torch.utils.flop_counter` (operators as dispatched, halved), and the closed form from the token counts that were
observed. Where they differ by more than 0.5 % the report says so instead of choosing. A forward that cannot be traced,
such as one with an in-place `scatter_`, is counted as dispatched alone, and the report says that, too.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from suite.attachment.handle import handle_of
from suite.backbones import backbone_of, family_of
from suite.backbones.base import BackboneFamily, PartRules
from suite.errors import CellError, RequestError
from suite.measure.closed_form import closed_form
from suite.measure.dispatch import count_macs_fast, dispatched_ops, quiet_forward
from suite.measure.formula import BaseCost
from suite.measure.op_handles import Op, Recorder

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # fvcore compiles loss functions that nobody asked for
    from fvcore.nn import FlopCountAnalysis

__all__ = ["FlopReport", "PartRules", "count_flops", "count_macs_fast", "count_module", "smooth_image"]

TOLERANCE = 0.005
PARTS = ("patch_embed", "attention", "mlp", "head", "reducer")


@dataclass(frozen=True)
class FlopReport:
    """Cost of one image in MACs.

    total: fvcore with our handles, or where it cannot trace the forward, what is dispatched; untraced says why then.
    reducer: what the reducer itself computes (part of the total).
    by_part: patch_embed, attention, mlp, head, reducer; they add up to the total.
    by_block: cost of every block, a reducer's work in it included.
    formula: closed form of the cost without the reducer's own, from observed token counts; None where unknown.
    torch: torch.utils.flop_counter / 2. disputed, why: the three differ by more than 0.5 %.
    uncounted: operators that may cost something and have no handle, with how often they ran.
    per_image: totals of the images that were counted, more than one for input-dependent reducers only. total_p5,
    total_p95: their percentiles; tokens_mean, tokens_p5, tokens_p95: of the tokens that leave the last block. None
    where one image says it all.
    """

    total: int
    reducer: int
    by_part: dict[str, int]
    by_block: list[int]
    formula: int | None
    torch: int
    disputed: bool
    why: str
    uncounted: dict[str, int]
    per_image: list[int] = field(default_factory=list)
    total_p5: float | None = None
    total_p95: float | None = None
    tokens_mean: float | None = None
    tokens_p5: float | None = None
    tokens_p95: float | None = None
    untraced: str = ""

    @property
    def images(self) -> int:
        return len(self.per_image)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "images": self.images}


def count_flops(
    model: nn.Module,
    image_size: int | tuple[int, int] | None = None,
    *,
    images: Tensor | None = None,
    rules: PartRules | None = None,
) -> FlopReport:
    """Count the MACs of one forward at batch 1, in eval mode, of a model with or without a reducer attached.

    Args:
        model: takes (1, 3, H, W), or is a model around a backbone that does, which alone is counted; its mode, hooks
            and device are left as they were.
        image_size: H = W, or (H, W), of the smooth synthetic image that is used when `images` is None; default the
            size that the model was built for, 224 where it does not say.
        images: (B, 3, H, W) preprocessed images. The first is counted; all of them, and the mean reported, when the
            attached reducer's token counts depend on the input.
        rules: where the parts are; default the family's own `part_rules`, or timm's names.

    Raises:
        RequestError: `images` is not of that shape. CellError: the model cannot be run.
    """
    model = backbone_of(model)
    family = _family_of(model)
    if images is None:
        built_for = getattr(getattr(model, "patch_embed", None), "img_size", None)
        size = image_size or (family.image_size(model) if family else built_for) or 224
        images = smooth_image(size, channels=family.channels(model) if family else 3)
    if images.dim() != 4 or len(images) == 0:
        raise RequestError(f"images of shape {tuple(images.shape)}: FLOPs are counted on (B, 3, H, W), B at least 1")
    handle = handle_of(model)
    fixed = handle is None or handle.planned_counts is not None
    rules = rules or (family.rules_of(model) if family else PartRules())
    report = _count_image(model, images[:1], rules)
    return report if fixed else _over(model, images, report)


def count_module(module: nn.Module, *inputs: Tensor) -> int:
    """MACs of one call of a module beside the backbone, such as a decoder; by the counter of `FlopReport.total`.

    Raises CellError where the module cannot be run.
    """
    with quiet_forward(module, inputs[0]):
        return sum(op.macs for op in _count(_Counted(module, None), *inputs).ops)


def smooth_image(size: int | tuple[int, int] = 224, seed: int = 0, channels: int = 3) -> Tensor:
    """(1, channels, H, W) deterministic picture of soft blobs, mean 0 and deviation 1.

    Neighbours are alike, as in photographs: reducers that look at the input decide otherwise on white noise.
    """
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(seed)
    field = F.avg_pool2d(torch.randn(1, channels, 16, 16, generator=generator), 3, stride=1)
    image = F.interpolate(field, (height, width), mode="bilinear", align_corners=False)
    image = (image - image.mean()) / image.std() + 0.05 * torch.randn(image.shape, generator=generator)
    return image


def _count_image(model: nn.Module, image: Tensor, rules: PartRules) -> FlopReport:
    with quiet_forward(model, image) as image:
        handle = handle_of(model)
        found = _count(_Counted(model, None if handle is None else handle.reducer), image)
    by_part, by_block = _attribute(found.ops, rules)
    total = sum(by_part.values())
    base = _closed_form(model, image)
    why = _disputes(total, by_part["reducer"], found.dispatched, base)
    return FlopReport(
        total=total,
        reducer=by_part["reducer"],
        by_part=by_part,
        by_block=by_block,
        formula=None if base is None else base.total,
        torch=found.dispatched,
        disputed=bool(why),
        why="; ".join(why),
        uncounted=found.uncounted | _hidden_products(found.ops, total),
        per_image=[total],
        untraced=found.untraced,
    )


def _hidden_products(ops: Sequence[Op], total: int) -> dict[str, int]:
    """Elementwise operators over all pairs, where together they would be more than 0.1 % of the total."""
    hidden = [op for op in ops if op.pairs]
    if sum(op.pairs for op in hidden) <= 0.001 * total:
        return {}
    return dict(Counter(f"aten::{op.name} (all pairs)" for op in hidden))


class _Counted(nn.Module):
    """Model and reducer side by side, so that fvcore gives the reducer's work a scope of its own; and sizes an output,
    or a trace would leave out the cost of those that no block reads any more."""

    def __init__(self, model: nn.Module, reducer: nn.Module | None) -> None:
        super().__init__()
        self.reducer = reducer
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs, handle = self.model(*inputs), handle_of(self.model)
        found = outputs, handle and handle.tokens and handle.tokens.size
        return tuple(leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor))


@dataclass(frozen=True)
class _Found:
    """Every operator in order, and how often those that nobody can count; what was dispatched; why without a trace."""

    ops: list[Op]
    uncounted: dict[str, int]
    dispatched: int
    untraced: str = ""


def _count(counted: _Counted, *inputs: Tensor) -> _Found:
    """By the trace, or where there is none, as dispatched. CellError where the forward cannot be run."""
    inputs = tuple(tree_map_only(Tensor, Tensor.detach, inputs))  # they may be from a forward that kept its graph
    try:
        (ops, uncounted), untraced = _traced_ops(counted, inputs), ""
    except Exception as error:  # whatever a tracer or a reducer under test raises
        ops, untraced = None, _first_line(error)
    try:
        # after the trace, so that an attached model is left with real counts instead of traced ones; with gradients
        # where parts are wanted, for without them a reducer's product may be fused into the block's
        with torch.set_grad_enabled(ops is None):
            dispatched, unknown = dispatched_ops(counted, *inputs)
    except Exception as error:
        name = type(counted.model).__name__
        raise CellError(f"FLOPs of {name}: the forward cannot be run: {_first_line(error)}") from error
    macs = sum(op.macs for op in dispatched)
    return _Found(dispatched, unknown, macs, untraced) if ops is None else _Found(ops, uncounted, macs)


def _first_line(error: Exception) -> str:
    """Of an error's message; of torch's own assertions without the file and the plea to report them."""
    text = str(error).strip().partition("please report a bug to PyTorch. ")[2] or str(error).strip()
    return next(iter(text.splitlines()), type(error).__name__)


def _traced_ops(counted: _Counted, inputs: tuple[Tensor, ...]) -> tuple[list[Op], dict[str, int]]:
    """Every operator that fvcore met, in order, and how often those without a handle."""
    analysis, recorder = FlopCountAnalysis(counted, inputs), Recorder()
    # cleared first: a default handle stays in force when it is set to None
    analysis.clear_op_handles().set_op_handle(**recorder.handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    hooks = [(own, dict(own)) for m in counted.modules() for own in (m._forward_pre_hooks, m._forward_hooks)]
    try:
        analysis.total()
        return recorder.ops, dict(analysis.unsupported_ops())
    finally:
        for now, before in hooks:  # fvcore leaves its hooks behind when the trace fails
            now.clear()
            now.update(before)


def _attribute(ops: Sequence[Op], rules: PartRules) -> tuple[dict[str, int], list[int]]:
    by_part = dict.fromkeys(PARTS, 0)
    by_block: dict[int, int] = {}
    running: int | None = None  # the block that ran last
    for op in ops:
        names = [name.removeprefix("model.") for name in op.scope if name != "model"]
        block = next((found for name in names if (found := rules.block_of(name)) is not None), None)
        if block is None and (not names or names[0] == "reducer"):
            block = running  # called between modules, such as attention on merged tokens
        elif block is not None:
            running = block
        by_part[_part(names, block, rules)] += op.macs
        if block is not None:
            by_block[block] = by_block.get(block, 0) + op.macs
    return by_part, [by_block.get(index, 0) for index in range(max(by_block, default=-1) + 1)]


def _part(names: Sequence[str], block: int | None, rules: PartRules) -> str:
    if "reducer" in names:
        return "reducer"
    if block is not None:
        return "mlp" if any(re.match(rules.mlp, name) for name in names) else "attention"
    return "patch_embed" if any(re.match(rules.patch_embed, name) for name in names) else "head"


def _family_of(model: nn.Module) -> BackboneFamily | None:
    """None for a model of no family that we know."""
    handle = handle_of(model)
    try:
        return family_of(model) if handle is None else handle.family
    except RequestError:
        return None


def _closed_form(model: nn.Module, image: Tensor) -> BaseCost | None:
    """None for a model of no family that we know."""
    family, (*_, height, width) = _family_of(model), image.shape
    return None if family is None else closed_form(model, family, (int(height), int(width)))


def _disputes(total: int, overhead: int, dispatched: int, base: BaseCost | None) -> list[str]:
    why = []
    if _differ(total, dispatched):
        why.append(f"fvcore counts {total:,} MACs, torch.utils.flop_counter {dispatched:,}")
    if base is not None and _differ(total - overhead, base.total):
        why.append(f"without the reducer's own work {total - overhead:,} MACs; the closed form is {base.total:,}")
    return why


def _differ(counted: int, expected: int) -> bool:
    return abs(counted - expected) > TOLERANCE * max(counted, expected)


def _over(model: nn.Module, images: Tensor, first: FlopReport) -> FlopReport:
    """The mean over images that cost differently. `first` is the first image's full report, and judges for all.

    An image's parts are the closed form of its own token counts; what was dispatched beyond that is the reducer's.
    """
    totals, tokens, parts, blocks = [], [], [], []
    for image in images:
        totals.append(count_macs_fast(model, image[None]))
        handle, base = handle_of(model), _closed_form(model, image[None])
        if handle is None or base is None:
            raise TypeError("only a reducer that is attached makes images cost differently")
        tokens.append(handle.token_counts[-1])
        own = totals[-1] - base.total
        parts.append({**base.by_part, "reducer": own})
        blocks.append(base.by_block)
    by_part = {part: round(mean(own[part] for own in parts)) for part in PARTS}
    low, high = np.percentile(totals, (5, 95))
    fewest, most = np.percentile(tokens, (5, 95))
    return replace(
        first,
        total=sum(by_part.values()),
        reducer=by_part["reducer"],
        by_part=by_part,
        by_block=[round(mean(block)) for block in zip(*blocks)],
        formula=sum(by_part.values()) - by_part["reducer"],
        torch=round(mean(totals)),
        per_image=totals,
        total_p5=float(low),
        total_p95=float(high),
        tokens_mean=mean(tokens),
        tokens_p5=float(fewest),
        tokens_p95=float(most),
    )
