"""Methods that learn nothing themselves: the model is fine-tuned through them, so that it gets used to fewer tokens."""

from __future__ import annotations

from typing import ClassVar

from suite.train.recipe import Recipe, register


class FineTuning(Recipe):
    """Thirty epochs at a low rate, as MCTF is trained, but without its consistency: an equal budget to compare with.

    Gradients flow through averages, drops and MLERP; which tokens are chosen carries none.
    """

    source = "ours: MCTF's numbers, for an equal budget"
    kinds: ClassVar = ("classification", "captioning", "segmentation")

    batch_size: int = 128
    lr: float = 3e-5
    drop_path: float = 0.1
    repeated: int = 3
    jitter: float = 0.3


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
    rate: str = "r=11"
    epochs: int = 10
