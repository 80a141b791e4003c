"""dTPS and DynamicViT: predictors learn which tokens to prune, held to a ratio and taught by the unreduced model."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.rates.rate import KeptFraction
from suite.reducers.score_predictor import PredictedPruning
from suite.sweep.spec import AskedRate
from suite.tokens.grouping import full_precision
from suite.train.numbers import Count, NotNegative, Positive
from suite.train.objective import Examples
from suite.train.recipe import Recipe, register
from suite.train.session import Session


@register
class DTPS(Recipe):
    """Masks are drawn by Gumbel-softmax and pruned tokens are kept out of attention. The loss adds, to that of the
    labels, how far the kept share is from the planned one at every stage, and how far the predictions are from those
    of the model as it was. The backbone learns at a hundredth of the predictors' rate.
    """

    method = "dtps"
    source = "Wei et al., CVPR 2023, arXiv 2304.10716; the authors' script for DeiT-S"
    kinds: ClassVar = ("classification",)

    rate: AskedRate = KeptFraction(0.7)
    batch_size: Count = 128
    lr: Positive = 2.5e-4
    warmup_epochs: NotNegative = 5.0
    backbone_lr: Positive = 0.01
    repeated: Count = 3
    mixup: NotNegative = 0.8
    cutmix: NotNegative = 1.0
    ratio: NotNegative = 2.0
    """Weight of the squared distance of kept shares from planned ones."""
    distill: NotNegative = 0.5
    """Weight of the divergence from the unreduced model's predictions; the authors' script for DeiT-T has none."""

    @property
    def needs_teacher(self) -> bool:
        return self.distill > 0

    def loss(self, session: Session, batch: Examples, step: int) -> tuple[Tensor, dict[str, float]]:
        session.set_modes(soft=True)
        logits = session.model(batch.images)
        labels = session.objective.criterion(logits, batch)
        reducer = cast(PredictedPruning, session.reducer)
        ratio = torch.stack(
            [((kept - planned) ** 2).mean() for kept, planned in zip(reducer.kept_shares, reducer.planned_shares)]
        ).mean()
        distance = torch.zeros_like(labels)
        if session.teacher is not None:
            with torch.no_grad():
                wanted = full_precision(session.teacher(batch.images)).log_softmax(1)
            distance = F.kl_div(full_precision(logits).log_softmax(1), wanted, reduction="batchmean", log_target=True)
        loss = labels + self.ratio * ratio + self.distill * distance
        kept = reducer.kept_shares[-1].mean().item()
        return loss, {"labels": labels.item(), "ratio": ratio.item(), "distance": distance.item(), "kept": kept}


@register
class DynamicViT(DTPS):
    """The same loss; the original's distillation of single tokens is left out."""

    method = "dynamicvit"
    source = "Rao et al., NeurIPS 2021, arXiv 2106.02034; numbers of dTPS, which builds on it"
