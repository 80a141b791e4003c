"""Trains the embedded scenes classifier: `python -m suite.train.embedded.classifier --out FILE --cache FOLDER`.

Recipe: AdamW, gradient clipping, mirrored scenes as augmentation. The model is trained first on windows of 7 x 7
patches near the main object (50 tokens instead of 197: five times as many images a second, and enough to learn what
shapes look like), then on whole scenes. An auxiliary head, thrown away afterwards, gives every patch token its own
targets (token labelling, Jiang et al. 2021, arXiv:2104.10858): the class of the object seen in the patch, whether it is
the main object, where its centre is and how large it is. Their dense gradient is what makes so small a transformer
learn within an hour on two cores. On cores shared with other programs set OMP_WAIT_POLICY=passive.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss

from suite.models.scenes_vit import build_scenes_vit
from suite.sweep.progress import Progress
from suite.train import loop
from suite.train.embedded.model_job import ModelJob, ModelRecipe, run_command_line
from suite.train.scene_batches import GRID, batch_of, load_split, normalise
from tasks.scenes.generator import NUM_CLASSES, VERSION


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learned."""

    scenes: int = 30_000
    window_steps: int = 1_500
    window_batch_size: int = 128
    window_lr: float = 2.0e-3
    full_steps: int = 2_600
    full_batch_size: int = 64
    full_lr: float = 1.0e-3
    weight_decay: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.window_steps + self.full_steps


def initialise(vit: VisionTransformer) -> None:
    """Start where a narrow transformer learns fast; timm's defaults are made for widths near 768.

    Linear layers: Xavier, with the two that write to the residual stream divided by sqrt(2 * depth). Position
    embeddings: two-dimensional sines and cosines. Keys equal queries at the start, so that a token first attends to
    tokens that are near and alike (after mimetic initialisation, Trockman & Kolter 2023, arXiv:2305.09828).
    """
    width = vit.embed_dim
    for name, layer in vit.named_modules():
        if isinstance(layer, nn.Linear) and name != "head":
            nn.init.xavier_uniform_(layer.weight)
            if name.endswith(("attn.proj", "mlp.fc2")):
                layer.weight.data /= math.sqrt(2 * len(vit.blocks))
            if name.endswith("attn.qkv"):
                nn.init.orthogonal_(layer.weight.data[:width])
                layer.weight.data[width : 2 * width] = layer.weight.data[:width]
    quarter = width // 4
    angles = torch.arange(GRID)[:, None] * torch.exp(-math.log(20.0) * torch.arange(quarter) / quarter)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (GRID, width / 2)
    grid = torch.cat([waves.repeat_interleave(GRID, 0), waves.repeat(GRID, 1)], dim=1)
    cast(torch.Tensor, vit.pos_embed).data[:, vit.num_prefix_tokens :] = 0.4 * grid


class TokenLabelled(nn.Module):
    """The classifier plus the auxiliary heads on its patch tokens: class, main object or not, geometry."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.widths = [NUM_CLASSES + 1, 1, 3]
        self.patch_head = nn.Linear(vit.embed_dim, sum(self.widths))

    def forward(self, images: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images of P patches and where on the grid these lie, (B, P), to class logits (B, K) and patch outputs.

        Patch outputs: class logits (B, P, K + 1), main-object logits (B, P), geometry (B, P, 3).
        """
        vit = self.vit
        pos_embed, cls_token = cast(torch.Tensor, self.vit.pos_embed), cast(torch.Tensor, self.vit.cls_token)
        patches = vit.patch_embed.proj(images).flatten(2).transpose(1, 2) + pos_embed[0, 1:][where]
        prefix = (cls_token + pos_embed[:, :1]).expand(len(images), -1, -1)
        tokens = vit.norm(vit.blocks(torch.cat([prefix, patches], dim=1)))
        classes, main, geometry = self.patch_head(tokens[:, 1:]).split(self.widths, dim=-1)
        return vit.forward_head(tokens), classes, main.squeeze(-1), geometry


@torch.inference_mode()
def accuracy(model: nn.Module, data, batch_size: int = 128) -> float:
    """Top-1 accuracy in float32 over all of `data`."""
    model.eval()
    images, labels = data[0], data[-1]
    hits = 0
    for start in range(0, len(labels), batch_size):
        rows = slice(start, start + batch_size)
        hits += int((model(normalise(images[rows])).argmax(1).numpy() == labels[rows]).sum())
    return hits / len(labels)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Windows: warm-up over 200 steps, linear decay to a half. Whole scenes: warm-up over 100, cosine decay to 1 %."""
    if step < recipe.window_steps:
        return recipe.window_lr * min(1.0, (step + 1) / 200) * (1 - 0.5 * step / recipe.window_steps)
    step -= recipe.window_steps
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.full_steps))
    return recipe.full_lr * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * cosine)


def loss_of(model: TokenLabelled, batch) -> tuple[torch.Tensor, float]:
    """The loss, and the accuracy of the patch classes on object patches: it rises first and shows progress early.

    Object patches and background weigh by themselves, not by their number: most patches are background.
    """
    images, where, patches, geometry, labels = batch
    with torch.autocast("cpu", torch.bfloat16):
        logits, classes, main, places = (part.float() for part in model(images, where))
    seen = patches > 0
    class_loss = cross_entropy(classes[seen], patches[seen]) + 0.3 * cross_entropy(classes[~seen], patches[~seen])
    main_loss = binary_cross_entropy_with_logits(main[seen], (patches == labels[:, None] + 1)[seen].float())
    place_loss = smooth_l1_loss(places[seen], geometry[seen])
    right = (classes[seen].argmax(-1) == patches[seen]).float().mean().item()
    tokens = class_loss + main_loss + 2 * place_loss
    return cross_entropy(logits, labels, label_smoothing=0.05) + tokens, right


UNDECAYED = ("pos_embed", "cls_token", "reg_token")


def optimiser_of(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; biases, norms, the class token and position embeddings are not decayed."""
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 and not n.endswith(UNDECAYED)]
    chosen = {id(p) for p in decayed}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.full_lr, betas=(0.9, 0.98), fused=True)


def write_snapshot(vit: nn.Module, path: Path, recipe: ModelRecipe, step: int, **measured: float) -> None:
    """float16 safetensors with the facts of the training as metadata; replaces the file in one step."""
    facts = {"recipe": asdict(recipe), "generator_version": VERSION, "steps_done": step, "dtype": "float16", **measured}
    facts["total_steps"] = recipe.steps
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tensors = {name: value.detach().half().contiguous() for name, value in vit.state_dict().items()}
    save_file(tensors, partial, {key: json.dumps(value) for key, value in facts.items()})
    partial.replace(path)
    print(f"saved {path.name} at step {step}: {measured}", flush=True)


class ClassifierJob(ModelJob):
    """data: a split, as `load_split` reads it."""

    model: TokenLabelled

    def __init__(
        self, recipe: Recipe, data: tuple[np.ndarray, ...], compiled: bool = False, model: nn.Module | None = None
    ) -> None:
        model = prepare_model(recipe, compiled) if model is None else model
        super().__init__(recipe, model, optimiser_of(model, recipe))
        self.recipe, self.data = recipe, data

    def learning_rates(self, step: int) -> list[float]:
        return [learning_rate(step, self.recipe)] * 2

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([self.recipe.seed + 1, step])
        windowed = step < self.recipe.window_steps
        size = self.recipe.window_batch_size if windowed else self.recipe.full_batch_size
        batch = batch_of(self.data, rng.choice(len(self.data[0]), size, replace=False), rng, windowed)
        loss, right = loss_of(self.model, batch)
        return loss, {"object_patches": right}


def prepare_model(recipe: Recipe, compiled: bool) -> TokenLabelled:
    """A model to start from."""
    torch.manual_seed(recipe.seed)
    model = TokenLabelled(build_scenes_vit())
    initialise(model.vit)
    for block in model.vit.blocks:
        cast(
            Any, block
        ).attn.fused_attn = False  # the backward of fused attention is the slower one on CPUs, several times
        if compiled:
            block.compile(dynamic=False)
    return model


def train(recipe: Recipe, out: Path, cache: Path, every: int, workers: int, compiled: bool) -> None:
    """Train, from the checkpoint in `<cache>/classifier` if there is one; snapshots to `out` every `every` steps."""
    job = ClassifierJob(recipe, load_split("train", recipe.scenes, cache, workers), compiled)
    train_job(job, out, cache, every, workers)


def train_job(job: ClassifierJob, out: Path, cache: Path, every: int, workers: int, name: str = "classifier") -> None:
    """`train` of a job that is made already, with its checkpoint in `<cache>/<name>`."""
    recipe = job.recipe
    val, test = load_split("val", 1000, cache, workers), load_split("test", 1000, cache, workers)

    def measure_and_write(step: int, **parts: tuple[np.ndarray, ...]) -> None:
        tops = {f"{split}_top1": accuracy(job.model.vit, part) for split, part in parts.items()}
        write_snapshot(job.model.vit, out, recipe, step, **tops)

    few = tuple(part[:300] for part in val)
    loop.train(job, cache / name, Progress(), every=every, saved=lambda step: measure_and_write(step, val=few))
    measure_and_write(recipe.steps, val=val, test=test)


if __name__ == "__main__":
    run_command_line(__doc__, Recipe(), train, out="safetensors file to write", every=500)
