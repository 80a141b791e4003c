"""Methods that learn nothing themselves: the model is fine-tuned through them, so that it gets used to fewer tokens."""

from __future__ import annotations

from typing import ClassVar

from suite.rates.rate import TokensPerBlock
from suite.sweep.spec import AskedRate
from suite.train.numbers import Count, NotNegative, Positive, Share
from suite.train.recipe import Recipe, register


class FineTuning(Recipe):
    """Thirty epochs at a low rate, as MCTF is trained, but without its consistency: an equal budget to compare with.

    Gradients flow through averages, drops and MLERP; which tokens are chosen carries none.
    """

    source = "ours: MCTF's numbers, for an equal budget"
    kinds: ClassVar = ("classification", "captioning", "segmentation")

    batch_size: Count = 128
    lr: Positive = 3e-5
    drop_path: Share = 0.1
    repeated: Count = 3
    jitter: NotNegative = 0.3


@register
class ToMe(FineTuning):
    method = "tome"


@register
class ToFu(FineTuning):
    method = "tofu"


@register
class PiToMe(FineTuning):
    """Ten epochs, as the authors' command line has it."""

    method = "pitome"
    rate: AskedRate = TokensPerBlock(11)
    epochs: Count = 10
