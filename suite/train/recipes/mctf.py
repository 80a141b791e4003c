"""MCTF: fine-tuning with a consistency between strongly and weakly reduced class features."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from suite.errors import RequestError
from suite.schedule import parse_rate
from suite.train.objective import Examples
from suite.train.recipe import Count, NotNegative, Positive, Recipe, Share, register
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

    rate: str = "r=16"
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
        session.modes(soft=False)
        session.model.eval()
        with torch.no_grad():
            image = torch.rand(1, 3, height, width, device=session.device)
            read, whole = session.features(image)[1], session.model(image)
        if not torch.allclose(read, whole, atol=1e-4):
            name = type(session.model).__bases__[-1].__name__
            raise RequestError(f"'mctf' compares the features of one head, and {name} predicts by more than one")

    def loss(self, session: Session, batch: Examples, step: int) -> tuple[Tensor, dict[str, float]]:
        session.modes(soft=False)
        session.set_rate(self.weaker(session.rate))
        taught, logits = session.features(batch.images)
        teacher = session.objective.criterion(logits, batch)
        session.set_rate(session.rate)
        learned, logits = session.features(batch.images)
        student = session.objective.criterion(logits, batch)
        distance = (taught.detach().float() - learned.float()).square().mean(1)
        sure = (logits.float().softmax(1) * labelled(batch.targets)).sum(1) > self.gate
        # none passes: the sum over none is 0, with a gradient of 0
        agreement = distance[sure].sum() / sure.sum().clamp(min=1)
        loss = student + teacher + self.consistency * agreement
        return loss, {"student": student.item(), "teacher": teacher.item(), "consistency": agreement.item()}

    def weaker(self, rate: str) -> str:
        """The teacher's rate of one update."""
        asked = parse_rate(rate)
        if asked.is_fraction:
            part = int(torch.randint(max(1, round(100 * self.teacher_fraction)), ())) / 100
            blocks = "@" + ",".join(map(str, asked.blocks)) if asked.blocks is not None else ""
            return f"r={part:g}{blocks}"
        return f"r={int(torch.randint(self.teacher, ()))}"


def labelled(targets: Tensor) -> Tensor:
    """(B, K) bool: the labels in soft targets, one or, of a mixed image, two."""
    return targets > targets.amin(1, keepdim=True)
