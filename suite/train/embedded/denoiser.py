"""Trains the embedded denoiser: `python -m suite.train.embedded.denoiser --out FILE --cache FOLDER`.

It learns to draw the main object of a scene alone on its ground, 56 pixels a side, by the velocity of a rectified flow
(Liu et al., ICLR 2023). Its blocks, patch embedding and positions start from the embedded classifier's, which sees the
same grid of patches at the same width: half an hour on a core is little for a model that has to draw. Most updates are
of windows of 7 x 7 patches around the object (51 tokens instead of 198, none of them far from what is to be drawn), the
others of whole pictures. What is kept are running means of the weights. On cores shared with other programs set
OMP_WAIT_POLICY=passive; `--compile` halves the time.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from suite.backbones.scenes_dit import GRID, NUM_PREFIX, PATCH, PICTURE_SIDE, ScenesDiT, patchify
from suite.models.load import load_model
from suite.models.scenes_dit import REAL, ScenesGenerator, build_denoiser
from suite.models.scenes_vit import SCENES_CLASSES, SCENES_SIDE
from suite.sweep.progress import Progress
from suite.train import loop
from suite.train.embedded.classifier import write_snapshot
from suite.train.embedded.model_job import ModelJob, run_command_line
from suite.train.scene_batches import WINDOW, normalise
from tasks.scenes.generator import VERSION, draw_main_object


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learned, with the classifier's weights."""

    pictures: int = 4_096
    window_steps: int = 8_000
    window_batch_size: int = 64
    window_lr: float = 1.5e-3
    whole_steps: int = 900
    whole_batch_size: int = 24
    whole_lr: float = 9.0e-4
    weight_decay: float = 0.01
    without_class: float = 0.1
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.window_steps + self.whole_steps


class DenoiserJob(ModelJob):
    """data: pictures, labels and centres, as `load_pictures` reads them. `kept`: the model with the running means."""

    model: ScenesDiT

    def __init__(self, recipe: Recipe, data: tuple[np.ndarray, ...], compiled: bool = False) -> None:
        model = prepare_model(recipe, compiled)
        super().__init__(recipe, model, optimiser_of(model, recipe))
        self.recipe, self.data, self.kept = recipe, data, copy.deepcopy(model).eval()

    def learning_rates(self, step: int) -> list[float]:
        """Windows: warm-up over 100 steps, a cosine half the way down. Whole pictures: over 20, down to 5 %."""
        recipe = self.recipe
        if step < recipe.window_steps:
            return [recipe.window_lr * min(1.0, (step + 1) / 100) * decayed(step, 2 * recipe.window_steps)] * 2
        step -= recipe.window_steps
        return [recipe.whole_lr * min(1.0, (step + 1) / 20) * decayed(step, recipe.whole_steps)] * 2

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the velocity, at times that are mostly in the middle (Esser et al., ICML 2024)."""
        recipe, windowed = self.recipe, step < self.recipe.window_steps
        rng = np.random.default_rng([recipe.seed + 4, step])
        size = recipe.window_batch_size if windowed else recipe.whole_batch_size
        rows = np.sort(rng.choice(len(self.data[0]), size, replace=False))
        images, labels, centres = (part[rows] for part in self.data)
        mirrored = rng.random(size) < 0.5  # no shape tells left from right
        images[mirrored] = images[mirrored, :, ::-1]
        centres[mirrored, 1] = GRID - centres[mirrored, 1]
        pictures = patchify(normalise(images))
        where = torch.arange(GRID * GRID).expand(size, -1)
        if windowed:
            where = window_around(centres + rng.uniform(-1.5, 1.5, centres.shape))
            pictures = pictures.take_along_dim(where[..., None], 1)
        positions = self.model.pos_embed[0, NUM_PREFIX:][where]
        classes = torch.from_numpy(np.where(rng.random(size) < recipe.without_class, SCENES_CLASSES, labels))
        noise = torch.from_numpy(rng.standard_normal(pictures.shape, dtype=np.float32))
        times = torch.from_numpy(rng.standard_normal(size, dtype=np.float32)).sigmoid()
        time = times[:, None, None]
        with torch.autocast("cpu", torch.bfloat16):
            noisy = (1 - time) * pictures + time * noise
            velocities = self.model.patch_velocities(noisy, times, classes, positions)
        return (velocities.float() - (noise - pictures)).square().mean(), {}

    def update(self, step: int) -> dict[str, float]:
        noted = super().update(step)
        since = step - self.recipe.window_steps if step >= self.recipe.window_steps else step  # means begin anew
        decay = min(0.999, (1 + since) / (10 + since))
        with torch.no_grad():
            for mean, value in zip(self.kept.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return noted

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "kept": self.kept.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.kept.load_state_dict(state["kept"])


def decayed(step: int, steps: int) -> float:
    """What is left of a learning rate that falls by a cosine to 5 %."""
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps))


def prepare_model(recipe: Recipe, compiled: bool) -> ScenesDiT:
    """A model to start from: the classifier's first blocks, and of each pair that a skip joins, the later alone."""
    torch.manual_seed(recipe.seed)
    model = build_denoiser()
    classifier = cast(Any, load_model("scenes_vit", "embedded")[0])
    with torch.no_grad():
        for ours, theirs in zip(model.blocks, classifier.blocks):
            ours.load_state_dict(theirs.state_dict())
        # a picture of half the side, each of whose pixels stands for four
        kernel = classifier.patch_embed.proj.weight.unflatten(3, (PATCH, 2)).unflatten(2, (PATCH, 2)).sum((3, 5))
        model.patch_embed.weight.copy_(kernel.flatten(1))
        model.patch_embed.bias.copy_(classifier.patch_embed.proj.bias)
        model.pos_embed[:, NUM_PREFIX:].copy_(classifier.pos_embed[:, 1:])
        for skip in cast(Any, model.skips):
            nn.init.zeros_(skip.bias)
            nn.init.normal_(skip.weight, std=0.02)
            skip.weight[:, : model.width] += torch.eye(model.width)
    for block in cast(Any, model.blocks):
        block.attn.fused_attn = False  # the backward of fused attention is the slower one on CPUs, several times
        if compiled:
            block.compile(dynamic=False)
    return model


def window_around(centres: np.ndarray) -> Tensor:
    """Centres (B, 2) in patches -> (B, 49) int64 places of the patches of windows about them, within the picture."""
    corners = np.rint(centres - WINDOW / 2).clip(0, GRID - WINDOW).astype(np.int64)
    rows, columns = (corners[:, axis, None] + np.arange(WINDOW) for axis in (0, 1))
    return torch.from_numpy(rows[:, :, None] * GRID + columns[:, None, :]).flatten(1)


def optimiser_of(model: ScenesDiT, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; biases, norms, positions and the table of classes are not decayed."""
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (recipe.weight_decay, 0.0)]
    for name, parameter in model.named_parameters():
        groups[parameter.ndim < 2 or name.startswith(("pos_embed", "class_embed"))]["params"].append(parameter)
    return torch.optim.AdamW(groups, lr=recipe.window_lr, betas=(0.9, 0.99), fused=True)


def _draw_row(job: tuple[str, int]) -> tuple[np.ndarray, int, tuple[float, float]]:
    image, thing = draw_main_object(*job)
    quarters = image.reshape(PICTURE_SIDE, 2, PICTURE_SIDE, 2, 3).mean((1, 3))
    in_patches = GRID / SCENES_SIDE
    return np.rint(quarters).astype(np.uint8), thing.class_id, (thing.cy * in_patches, thing.cx * in_patches)


def load_pictures(split: str, count: int, cache: Path, workers: int) -> tuple[np.ndarray, ...]:
    """Main objects alone, drawn once and then read.

    Pictures (N, 56, 56, 3) uint8, means of 2 x 2 pixels; labels (N,); centres (N, 2), row and column in patches.
    """
    names = [cache / f"v{VERSION}-alone-{split}-{count}-{part}.npy" for part in ("images", "labels", "centres")]
    if not names[-1].exists():
        cache.mkdir(parents=True, exist_ok=True)
        with get_context("spawn").Pool(workers) as pool:
            rows = pool.map(_draw_row, [(split, i) for i in range(count)], chunksize=64)
        for name, column in zip(names, zip(*rows, strict=True), strict=True):
            np.save(name, np.array(column))  # centres last: their presence says that the others are whole
    return tuple(np.load(name) for name in names)


@torch.inference_mode()
def class_accuracy(denoiser: ScenesDiT, per_class: int = 1, seed: int = 0) -> float:
    """Share of pictures that the judge takes for what they were to be."""
    model = ScenesGenerator()
    model.backbone = denoiser
    classes = torch.arange(SCENES_CLASSES).repeat(per_class)
    shape = (len(classes), 3, PICTURE_SIDE, PICTURE_SIDE)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    right = 0
    for some, wanted in zip(noise.split(SCENES_CLASSES), classes.split(SCENES_CLASSES), strict=True):
        right += int((model.eval().look(model.draw(some, wanted, 20, 2.0))[0].argmax(1) == wanted).sum())
    return right / len(classes)


@torch.inference_mode()
def write_real_features(out: Path, cache: Path, workers: int, count: int = 1000) -> None:
    """What the judge makes of pictures of 'val', (n, 96) float16: what is drawn is compared with them."""
    images, _, _ = load_pictures("val", count, cache, workers)
    model = ScenesGenerator().eval()
    features = torch.cat([model.look(normalise(images[i : i + 50]))[1] for i in range(0, count, 50)])
    save_file({"features": features.half()}, out)


def train(recipe: Recipe, out: Path, cache: Path, every: int, workers: int, compiled: bool) -> None:
    """Train, from the checkpoint in `<cache>/denoiser` if there is one; snapshots to `out` every `every` steps."""
    job = DenoiserJob(recipe, load_pictures("train", recipe.pictures, cache, workers), compiled)

    def measure_and_write(step: int, per_class: int = 1) -> None:
        write_snapshot(job.kept, out, recipe, step, class_accuracy=class_accuracy(job.kept, per_class))

    loop.train(job, cache / "denoiser", Progress(), every=every, saved=measure_and_write)
    measure_and_write(recipe.steps, per_class=4)
    write_real_features(REAL, cache, workers)


if __name__ == "__main__":
    run_command_line(__doc__, Recipe(), train, out="safetensors file to write", every=250)
