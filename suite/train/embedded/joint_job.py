"""A new head on the encoder of the embedded classifier: first it learns alone to read it, then both learn together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from suite.train.embedded.model_job import ModelJob


@dataclass(frozen=True)
class JointRecipe:
    """Everything that decides what is learned, with the classifier's weights."""

    scenes: int = 30_000
    frozen_steps: int = 100
    joint_steps: int = 1_200
    batch_size: int = 64
    lr: float = 1.5e-3
    encoder_lr: float = 8.0e-4
    weight_decay: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.frozen_steps + self.joint_steps


class JointJob(ModelJob):
    """AdamW in four groups: encoder and head, decayed and not (biases, norms, embeddings)."""

    warm_up: ClassVar[int]
    """Updates over which the head's rate rises at first."""
    encoder: ClassVar[str]
    """Part of the names of the encoder's parameters."""
    embeddings: ClassVar[tuple[str, ...]]
    """Parts of the names of matrices that are not decayed."""

    def __init__(self, recipe: JointRecipe, model: nn.Module) -> None:
        self.recipe = recipe
        decays = (recipe.weight_decay, 0.0)
        groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for _ in range(2) for decay in decays]
        for name, parameter in model.named_parameters():
            kept = parameter.ndim < 2 or any(part in name for part in self.embeddings)
            groups[2 * (self.encoder not in name) + kept]["params"].append(parameter)
        optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)
        super().__init__(recipe, model, optimiser)

    def learning_rates(self, step: int) -> list[float]:
        """Frozen: warm-up of the head. Joint: warm-up of the encoder over 100 steps, cosine decay of both to 1 %."""
        recipe = self.recipe
        if step < recipe.frozen_steps:
            encoder, head = 0.0, recipe.lr * min(1.0, (step + 1) / self.warm_up)
        else:
            step -= recipe.frozen_steps
            factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / max(1, recipe.joint_steps)))
            encoder, head = recipe.encoder_lr * factor * min(1.0, (step + 1) / 100), recipe.lr * factor
        return [encoder, encoder, head, head]
