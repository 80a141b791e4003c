"""EViT and eTPS: fine-tuning with pruning by class attention; from scratch, with more and more of it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import model_validator

from suite.rates.rate import KeptFraction, Rate
from suite.sweep.spec import AskedRate
from suite.train.numbers import Count, NotNegative, Positive, truth
from suite.train.recipe import Recipe, register

FROM_SCRATCH = {
    "epochs": 300, "lr": 2e-3, "min_lr": 1e-5, "warmup_epochs": 5, "weight_decay": 0.05, "shrink_start": 10,
    "shrink_epochs": 100, "repeated": 3, "drop_path": 0.1, "mixup": 0.8, "cutmix": 1.0,
}  # fmt: skip


@register
class EViT(Recipe):
    """Fine-tuning by default, at a fixed rate. `from_scratch`: DeiT's recipe, keeping all tokens for `shrink_start`
    epochs, then falling to `rate` along half a cosine over `shrink_epochs`.
    """

    method = "evit"
    source = "Liang et al., ICLR 2022, arXiv 2202.07800; the authors' commands"
    kinds: ClassVar = ("classification",)

    rate: AskedRate = KeptFraction(0.7)
    batch_size: Count = 256
    lr: Positive = 2e-5
    min_lr: NotNegative = 2e-6
    weight_decay: NotNegative = 1e-6
    mixup: NotNegative = 0.8
    cutmix: NotNegative = 1.0
    from_scratch: bool = False
    shrink_start: NotNegative = 0.0
    shrink_epochs: NotNegative = 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_scratch(cls, values: dict[str, Any]) -> dict[str, Any]:
        if truth(values.get("from_scratch", False)):
            return {**FROM_SCRATCH, **values}
        return values

    def rate_at(self, rate: Rate, epoch: float) -> Rate:
        if epoch >= self.shrink_start + self.shrink_epochs or not isinstance(rate, KeptFraction):
            return rate
        since = max(0.0, epoch - self.shrink_start)
        gap = 0.5 * (1 + math.cos(math.pi * since / self.shrink_epochs)) if since else 1.0

        def shrunk(last: float) -> float:
            return round(last + (1 - last) * gap, 4)

        keep = tuple(map(shrunk, rate.keep)) if isinstance(rate.keep, tuple) else shrunk(rate.keep)
        return KeptFraction(keep, blocks=rate.blocks)


@register
class ETPS(EViT):
    """Fine-tuned as EViT is, from which it differs only in what it does with pruned tokens."""

    method = "etps"
    source = "ours: EViT's numbers, whose score it shares"
