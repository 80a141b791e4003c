"""DTEM: the embedding learns to merge by the task's loss alone, through soft merging."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from suite.rates.rate import TokensPerBlock
from suite.sweep.spec import AskedRate
from suite.train.numbers import FROZEN, WHOLE, Count, NotNegative, Positive, Share, truth
from suite.train.objective import Examples
from suite.train.recipe import Recipe, register
from suite.train.session import Session


@register
class DTEM(Recipe):
    """Modular by default: the backbone is frozen, and one embedding, trained at r = 16, serves every smaller r.

    With `end_to_end`, the backbone learns with hard merges as in evaluation, and every `soft_every`-th update the
    embedding learns with soft ones (nine to one); the learning rates of that mode were not published.
    """

    method = "dtem"
    source = "Lee and Hong, NeurIPS 2024, arXiv 2412.10569; numbers of modular training from the authors' code"
    kinds: ClassVar = ("classification", "captioning", "segmentation")

    rate: AskedRate = TokensPerBlock(16)
    batch_size: Count = 128
    weight_decay: NotNegative = 1e-4
    clip: Positive | None = 5.0
    backbone: str = FROZEN
    mixup: NotNegative = 0.8
    cutmix: NotNegative = 1.0
    smoothing: Share = 0.0
    end_to_end: bool = False
    soft_every: int = Field(10, ge=2)

    @model_validator(mode="before")
    @classmethod
    def _whole_model(cls, values: dict[str, Any]) -> dict[str, Any]:
        # a tenth of the embedding's rate: ours
        return {"backbone": WHOLE, "backbone_lr": 0.1, **values} if truth(values.get("end_to_end", False)) else values

    @model_validator(mode="after")
    def _something_learns(self) -> DTEM:
        if self.end_to_end and not self.backbone:
            raise ValueError("end to end, the backbone learns; leave backbone out or name its parameters")
        return self

    def loss(self, session: Session, batch: Examples, step: int) -> tuple[Tensor, dict[str, float]]:
        hard = self.end_to_end and step % self.soft_every != self.soft_every - 1
        # by keys, which are the backbone's, nothing else could learn
        session.learn(reducer=not hard, backbone=hard or session.reducer.learned is None)
        session.set_modes(soft=not hard)
        return session.objective.loss(session.model, batch), {}
