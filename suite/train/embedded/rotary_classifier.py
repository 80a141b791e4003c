"""Trains the embedded model of rotary position embedding:
`python -m suite.train.embedded.rotary_classifier --out FILE --cache FOLDER`.

It starts from the embedded classifier, whose blocks it shares. What that model adds to its patches to tell where they
are fades within the first updates, so that rotations take over what it said; classes, outlines and places of objects
are learned anew by the classifier's own loss, on windows first and then on whole scenes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.models.load import load_model
from suite.models.scenes_eva import build_scenes_eva
from suite.train.embedded import classifier
from suite.train.embedded.model_job import run_command_line
from suite.train.scene_batches import load_split


@dataclass(frozen=True)
class Recipe(classifier.Recipe):
    """Everything that decides what is learned, with the classifier's weights."""

    scenes: int = 8_000
    window_steps: int = 250
    window_batch_size: int = 64
    window_lr: float = 1.0e-3
    full_steps: int = 200
    full_batch_size: int = 24
    full_lr: float = 7.0e-4
    fading_steps: int = 250


class RotaryLabelled(classifier.TokenLabelled):
    """`TokenLabelled` of an `Eva`. fading: (1, P, C) what is added to patches by place, by a share that falls to 0."""

    vit: Any
    fading: Tensor

    def __init__(self, eva: Any, fading: Tensor) -> None:
        super().__init__(eva)
        self.register_buffer("fading", fading, persistent=False)
        self.share = 0.0

    def forward(self, images: Tensor, where: Tensor) -> tuple[Tensor, ...]:
        eva = self.vit
        patches = eva.patch_embed.proj(images).flatten(2).transpose(1, 2)
        patches = patches + self.share * self.fading[0][where]
        prefix = torch.cat([eva.cls_token, eva.reg_token], dim=1).expand(len(images), -1, -1)
        x = torch.cat([prefix, patches], dim=1)
        rotations = eva.rope.get_embed()[where][:, None]
        for block in eva.blocks:
            x = block(x, rope=rotations)
        x = eva.norm(x)
        classes, main, geometry = self.patch_head(x[:, eva.num_prefix_tokens :]).split(self.widths, dim=-1)
        return eva.forward_head(x), classes, main.squeeze(-1), geometry


class RotaryJob(classifier.ClassifierJob):
    model: RotaryLabelled
    recipe: Recipe

    def learning_rates(self, step: int) -> list[float]:
        """Windows: warm-up over 200 steps, and a fall that would reach a half in 500. Whole scenes: cosine to 0."""
        recipe = self.recipe
        if step < recipe.window_steps:
            return [recipe.window_lr * min(1.0, (step + 1) / 200) * (1 - 0.5 * step / 500)] * 2
        share = (step - recipe.window_steps) / recipe.full_steps
        return [0.5 * recipe.full_lr * (1 + math.cos(math.pi * share))] * 2

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self.model.share = max(0.0, 1 - step / self.recipe.fading_steps)
        return super().loss(step)


def prepare_model(recipe: Recipe) -> RotaryLabelled:
    """A model to start from: the classifier's weights, as far as it has the same."""
    torch.manual_seed(recipe.seed)
    vit, _ = load_model("scenes_vit", "embedded")
    state = vit.state_dict()
    eva: Any = build_scenes_eva()
    left = eva.load_state_dict({name: value for name, value in state.items() if name in eva.state_dict()}, strict=False)
    assert all("gamma" in name or name == "reg_token" for name in left.missing_keys), left.missing_keys
    positions = state["pos_embed"]
    with torch.no_grad():
        eva.cls_token += positions[:, :1]
        eva.reg_token.copy_(eva.cls_token + 0.02 * torch.randn_like(eva.reg_token))
    patches = positions[:, 1:]
    with torch.no_grad():  # what is common to all places stays
        eva.patch_embed.proj.bias += patches.mean(dim=(0, 1))
    for block in eva.blocks:
        block.attn.fused_attn = False  # the backward of fused attention is the slower one on CPUs, several times
    return RotaryLabelled(eva, patches - patches.mean(dim=1, keepdim=True))


def train(recipe: Recipe, out: Path, cache: Path, every: int, workers: int, compiled: bool) -> None:
    """Train, from the checkpoint in `<cache>/rotary` if there is one; snapshots to `out` every `every` steps."""
    model: nn.Module = prepare_model(recipe)
    if compiled:
        model.compile(dynamic=False)
    job = RotaryJob(recipe, load_split("train", recipe.scenes, cache, workers), model=model)
    classifier.train_job(job, out, cache, every, workers, "rotary")


if __name__ == "__main__":
    run_command_line(__doc__, Recipe(), train, out="safetensors file to write", every=100)
