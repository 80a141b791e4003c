"""MCTF: fine-tuning with a consistency between strongly and weakly reduced class features."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from suite.errors import RequestError
from suite.rates.rate import FractionPerBlock, Rate, TokensPerBlock
from suite.sweep.spec import AskedRate
from suite.tokens.grouping import full_precision
from suite.train.examples import seed_of
from suite.train.numbers import Count, NotNegative, Positive, Share
from suite.train.objective import Examples
from suite.train.recipe import Recipe, register
from suite.train.session import Session


@register
class MCTF(Recipe):
    """A student at the rate and a teacher of the same weights at a random smaller one, in one update.

    Both learn by cross-entropy; the student's features before the head are drawn to the teacher's, on images whose
    label the student gives more than `gate` (in the authors' code alone). Ten epochs at the lowest rate follow the
    authors' thirty; here `epochs` are all.

    teacher: its r is uniform in {0, ..., teacher - 1}, drawn once per update. teacher_fraction: the same for rates that
    are fractions, in hundredths.
    """

    method = "mctf"
    source = "Lee, Choi and Kim, CVPR 2024, arXiv 2403.10030; numbers from the authors' commands for DeiT"
    kinds: ClassVar = ("classification",)

    rate: AskedRate = TokensPerBlock(16)
    batch_size: Count = 128
    lr: Positive = 3e-5
    drop_path: Share = 0.1
    repeated: Count = 3
    jitter: NotNegative = 0.3
    teacher: Count = 8
    teacher_fraction: float = Field(0.15, gt=0, lt=1)
    consistency: NotNegative = 3.0
    gate: Share = 0.4

    def begin(self, session: Session) -> None:
        height, width = session.handle.family.image_size(session.backbone)
        session.set_modes(soft=False)
        session.model.eval()
        with torch.no_grad():
            image = torch.rand(1, 3, height, width, device=session.device)
            read, whole = session.features(image)[1], session.model(image)
        if not torch.allclose(read, whole, atol=1e-4):
            name = type(session.model).__bases__[-1].__name__
            raise RequestError(f"'mctf' compares the features of one head, and {name} predicts by more than one")

    def terms(self, session: Session, batch: Examples, step: int) -> Tensor:
        """Images that the student is sure of."""
        return self.learned_by(session, batch)[2].sum()[None]

    def loss(self, session: Session, batch: Examples, step: int) -> tuple[Tensor, dict[str, float]]:
        learned, logits, sure = self.learned_by(session, batch)
        student = session.objective.criterion(logits, batch)
        session.set_rate(self.weaker(session.rate, step))
        taught, logits = session.features(batch.images)
        teacher = session.objective.criterion(logits, batch)
        session.set_rate(session.rate)
        distance = (full_precision(taught.detach()) - full_precision(learned)).square().mean(1)
        # none passes: the sum over none is 0, with a gradient of 0
        agreement = batch.mean(distance[sure].sum(), sure.sum())
        loss = student + teacher + self.consistency * agreement
        return loss, {"student": student.item(), "teacher": teacher.item(), "consistency": agreement.item()}

    def learned_by(self, session: Session, batch: Examples) -> tuple[Tensor, Tensor, Tensor]:
        """The student's features (B, C) and logits (B, K), and (B,) bool which images it is sure of."""
        session.set_modes(soft=False)
        features, logits = session.features(batch.images)
        sure = (full_precision(logits).softmax(1) * mark_labels(batch.targets)).sum(1) > self.gate
        return features, logits, sure

    def weaker(self, rate: Rate, step: int) -> Rate:
        """The teacher's rate of one update, the same for all its parts and processes."""
        drawn = torch.Generator().manual_seed(seed_of(self.seed, 2, step, 0) % 2**63)
        if isinstance(rate, FractionPerBlock):
            part = int(torch.randint(max(1, round(100 * self.teacher_fraction)), (), generator=drawn)) / 100
            return FractionPerBlock(part, blocks=rate.blocks) if part else TokensPerBlock(0)
        return TokensPerBlock(int(torch.randint(self.teacher, (), generator=drawn)))


def mark_labels(targets: Tensor) -> Tensor:
    """(B, K) bool: the labels in soft targets, one or, of a mixed image, two."""
    return targets > targets.amin(1, keepdim=True)
