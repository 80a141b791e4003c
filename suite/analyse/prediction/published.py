"""Published speeds, each as a forward that can be traced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from suite.contract.baseline import BASELINE
from suite.measure.prediction.shapes import Implementation
from suite.papers import paper_table, paper_tables
from suite.papers.table import Way
from suite.rates.rate import rate_text
from suite.tokens.layout import Layout


@dataclass(frozen=True)
class Circumstances:
    """How a table's speeds were measured. gpu: '' where it does not say.

    taken: what of it the table does not print, and why it is taken so. tf32: products of float32 run in it, as was
    PyTorch's default on Ampere from 1.7 to 1.11.
    """

    gpu: str
    batch: int
    how: Implementation
    tf32: bool = False
    taken: str = ""


_WRITTEN = "attention is written out, as its code is from before fused attention"
_FP32 = "precision is not printed: PyTorch's default, float32 without TF32"
_V100 = Circumstances("v100", 256, Implementation("fp32", fused=False), taken=f"an 'optimal' batch is 256; {_WRITTEN}")
_AUTOCAST = Implementation("fp16", autocast=True, fused=False)
CIRCUMSTANCES = {
    **dict.fromkeys(("tome-1", "tome-2", "tome-3", "tome-4", "tome-readme", "tofu-1", "tofu-4"), _V100),
    "diffrate-1": Circumstances(
        "a100", 1024, _AUTOCAST, taken=f"fp16 is autocast, as in the benchmark of ToMe that it builds on; {_WRITTEN}"
    ),
    "dynamicvit-1": Circumstances(
        "rtx3090", 32, Implementation("fp32", fused=False), tf32=True,
        taken=f"precision is not printed: PyTorch's default of 2021, float32 with TF32; {_WRITTEN}",
    ),
    "mctf-zoo": Circumstances("rtx3090", 256, _AUTOCAST, taken="batch 256, autocast and attention as in its code"),
    "dora-1": Circumstances("rtx4090", 320, Implementation("bf16"), taken="attention is fused, as in timm of its time"),
    "toast": Circumstances("h100", 128, Implementation("fp32"), taken=_FP32),
    "nap-mat": Circumstances("rtx3080", 16, Implementation("fp32"), taken=_FP32),
    "dtem-1": Circumstances("", 64, Implementation("fp32", fused=False), taken="the defaults of its benchmark's code"),
    "evit-2": Circumstances("", 64, Implementation("fp32", fused=False), taken="the defaults of its benchmark's code"),
}  # fmt: skip
"""By the names of `suite.papers.paper_tables`. Those without a GPU are shown and not fitted."""

SHAPES = {
    "ViT-B/16 @384 SWAG": "vit_base_patch16_384",
    "ViT-L/16 @512 SWAG": "vit_large_patch16_384@512",
    "ViT-H/14 @518 SWAG": "vit_huge_patch14_224@518",
}
"""Models of which there is no checkpoint here, by one of their shape."""

ALIKE = (BASELINE, "evit", "dynamicvit", "random")
"""What launches nearly the same whoever wrote it: the unreduced model, and what only drops tokens."""


@dataclass(frozen=True)
class Speed:
    """One published speed. table: see `CIRCUMSTANCES`; way: model, method and rate.

    unreduced: im/s of the model without a reducer in the same paper; None where it is that, or is not printed.
    """

    table: str
    line: int
    way: Way
    im_s: float
    unreduced: float | None = None

    @property
    def circumstances(self) -> Circumstances:
        return CIRCUMSTANCES[self.table]

    @property
    def speedup(self) -> float | None:
        return None if self.unreduced is None else self.im_s / self.unreduced

    @property
    def alike(self) -> bool:
        return self.way.reducer in ALIKE

    @property
    def what(self) -> tuple[Any, ...]:
        """Equal for a figure that is printed again."""
        way = self.way
        options = tuple(sorted(way.options.items()))
        return (self.circumstances, way.model, way.image_size, way.reducer, rate_text(way.rate), options, self.im_s)


def is_held_out(gpu: str, layout: Layout) -> bool:
    """Whether the parameters are not fitted on speeds of models of a shape on a GPU: half of such pairs, by a hash.

    Papers quote each other and measure one shape with several weights (DeiT-B, MAE-B), so what must not be on both
    sides is the shape.
    """
    text = f"{gpu}: {layout.depth} blocks of width {layout.width} on {layout.tokens} tokens"
    return sha256(text.encode()).digest()[0] % 2 == 0


def published_speeds() -> tuple[list[Speed], dict[str, int]]:
    """Those that can be predicted, each once; and why how many others cannot."""
    found: dict[tuple[Any, ...], Speed] = {}
    left: dict[str, int] = {}
    unreduced: dict[tuple[str, str, int | None], float] = {}
    for name, table in paper_tables().items():
        table = replace(table, models={**SHAPES, **table.models})
        for row in [] if table.absent else table.rows():
            if row.throughput_im_s != row.throughput_im_s:
                continue
            way = table.way(row) if name in CIRCUMSTANCES else "of a table that is not used (see CIRCUMSTANCES)"
            if isinstance(way, Way) and way.plan:
                way = "DiffRate's plan is not printed"
            if isinstance(way, str):
                left[way] = left.get(way, 0) + 1
                continue
            speed = Speed(name, int(row.line), way, float(row.throughput_im_s))
            if way.reducer == BASELINE:
                unreduced.setdefault(_model_in_paper(speed), speed.im_s)
            found.setdefault(speed.what, speed)
    return [
        speed if speed.way.reducer == BASELINE else replace(speed, unreduced=unreduced.get(_model_in_paper(speed)))
        for speed in found.values()
    ], left


def _model_in_paper(speed: Speed) -> tuple[str, str, int | None]:
    return paper_table(speed.table).file, speed.way.model, speed.way.image_size
