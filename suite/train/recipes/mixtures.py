"""SiT, PatchMerger and Sinkhorn: what mixes tokens is trained with the model, straight through."""

from __future__ import annotations

from typing import ClassVar

from suite.rates.rate import KeptFraction
from suite.sweep.spec import AskedRate
from suite.train.numbers import Count, NotNegative, Positive, Share
from suite.train.recipe import Recipe, register


class Mixtures(Recipe):
    """The comparison that all three are taken from trains everything alike."""

    source = "Haurum et al., ICCV-W 2023, arXiv 2308.04657"
    kinds: ClassVar = ("classification",)

    rate: AskedRate = KeptFraction(0.7)
    batch_size: Count = 128
    lr: Positive = 1e-3
    warmup_epochs: NotNegative = 20.0
    mixup: NotNegative = 0.8
    cutmix: NotNegative = 1.0
    drop_path: Share = 0.1


@register
class SiT(Mixtures):
    method = "sit"


@register
class PatchMerger(Mixtures):
    method = "patchmerger"


@register
class Sinkhorn(Mixtures):
    method = "sinkhorn"
