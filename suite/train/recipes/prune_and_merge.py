"""Prune-and-Merge: a plan from gradients; then its matrices and the model learn, taught by the unreduced model."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.errors import RequestError
from suite.rates.rate import KeptFraction, LearnedPlan
from suite.reducers import prune_and_merge
from suite.sweep.spec import AskedRate
from suite.tokens.grouping import full_precision
from suite.tokens.segments import plan_blocks
from suite.train.key_importance import measure_importance
from suite.train.numbers import Count, NotNegative, Positive, Share
from suite.train.objective import Examples
from suite.train.recipe import Recipe, register
from suite.train.session import Session


@register
class PruneAndMerge(Recipe):
    """`rate` says in which blocks, and around how many of all their patches segments are made; `prune` how many pass
    them by. Which, says the gradient on `score_batches` batches; what comes of it is the rate plan=1. The loss adds
    `distill` times the divergence from the unreduced model's softened predictions.

    Not said by the authors and decided here: mixing of images as DeiT has it, no stochastic depth, and for masks the
    same divergence, over every patch. `distill` is 0.8 with DeiT-T, `weight_decay` 0.05 with B. Their `lr` is for 512
    images an update and scales with these.
    """

    method = "prune_and_merge"
    source = "Mao et al., 2025, arXiv 2503.23455; the authors' commands, for DeiT-S"
    kinds: ClassVar = ("classification", "segmentation")

    rate: AskedRate = KeptFraction(0.6)
    prune: Share = 0.1
    """Share of patches that pass a block by, of all blocks together."""
    score_batches: Count = 250
    """Batches that patches are scored on, before anything is trained; the same ones in every process."""
    score_batch_size: Count = 256
    """Their images: within a batch gradients of opposite signs cancel, between batches they do not."""
    batch_size: Count = 256
    weight_decay: NotNegative = 1e-3
    mixup: NotNegative = 0.8
    cutmix: NotNegative = 1.0
    distill: NotNegative = 1.0
    temperature: Positive = 20.0
    """What the logits of both are divided by before they are compared."""

    @property
    def needs_teacher(self) -> bool:
        return self.distill > 0

    def begin(self, session: Session) -> None:
        asked, handle = session.rate, session.handle
        if not isinstance(asked, KeptFraction) or isinstance(asked.keep, tuple):
            raise RequestError(
                f"rate {asked} is not one share of the patches; give keep=0.6, keep=0.6@3,6,9 or flops=-35%"
            )
        handle.detach()
        if "importance" not in session.found:
            session.found["importance"] = self.score(session)
        layout, family = handle.layout, handle.family
        blocks = sorted(asked.blocks or range(layout.depth))
        _, columns = family.grid(handle.model, family.image_size(handle.model))
        try:
            plans = plan_blocks(session.found["importance"], blocks, self.prune, asked.keep, columns, layout.num_prefix)
        except ValueError as error:
            raise RequestError(f"rate {asked}, prune={self.prune:g}: {error}") from error
        cast(prune_and_merge.PruneAndMerge, session.reducer).follow(plans)
        handle.rate = session.rate = LearnedPlan(1)
        handle.attach()

    def score(self, session: Session) -> Tensor:
        """(L, n) float64: the importance of patches for the loss of the labels alone, on images that are whole."""
        changed = {
            "batch_size": self.score_batch_size, "steps": self.score_batches, "repeated": 1,
            "mixup": 0.0, "cutmix": 0.0, "erasing": 0.0, "smoothing": 0.0,
        }  # fmt: skip
        return measure_importance(session, self.model_copy(update=changed))

    def loss(self, session: Session, batch: Examples, step: int) -> tuple[Tensor, dict[str, float]]:
        session.set_modes(soft=False)
        logits = session.objective.predict(session.model, batch)
        labels = session.objective.criterion(logits, batch)
        distance = torch.zeros_like(labels)
        if session.teacher is not None:
            with torch.no_grad():
                taught = session.objective.predict(session.teacher, batch)
            distance = softened_divergence(logits, taught, self.temperature)
        return labels + self.distill * distance, {"labels": labels.item(), "distance": distance.item()}


def softened_divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """() of a student's logits (B, K, ...) from a teacher's: KL of both softened, times temperature^2.

    Mean over classes, too, as the authors' code, and DeiT's, has it.
    """
    student, teacher = ((full_precision(x) / temperature).log_softmax(1) for x in (logits, taught))
    total = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return total * temperature**2 / logits.numel()
