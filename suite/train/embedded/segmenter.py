"""Trains the embedded Segmenter: `python -m suite.train.embedded.segmenter --out FILE --cache FOLDER`.

The encoder starts from the embedded classifier, whose patch tokens were taught the class of what they show. First the
decoder alone learns to read them, then all is trained together, the encoder at a lower rate: it has yet to learn where
in a patch the outlines run. The loss is the cross-entropy of pixels in the enlarged masks. On cores shared
with other programs set OMP_WAIT_POLICY=passive.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from suite.backbones.segmenter import Segmenter
from suite.models.load import load_model
from suite.models.scenes_segmenter import build_scenes_segmenter
from suite.sweep.progress import Progress
from suite.train import loop
from suite.train.embedded.classifier import write_snapshot
from suite.train.embedded.joint_job import JointJob, JointRecipe
from suite.train.embedded.model_job import run_command_line
from suite.train.pixel_logits import STRIDE, pixel_logits
from suite.train.segment_batches import batch_of, segment_data
from tasks.segmentation_scoring import metrics


@dataclass(frozen=True)
class Recipe(JointRecipe):
    """Everything that decides what is learned, with the classifier's weights."""

    joint_steps: int = 800
    lr: float = 2.0e-3
    encoder_lr: float = 5.0e-4


class SegmenterJob(JointJob):
    """data: images and masks, as `segment_data` reads them."""

    model: Segmenter
    warm_up, encoder, embeddings = 50, "backbone.", ("pos_embed", "cls_token", "cls_emb")

    def __init__(self, recipe: Recipe, data: tuple[np.ndarray, np.ndarray], compiled: bool = False) -> None:
        super().__init__(recipe, prepare_model(recipe, compiled))
        self.data = data

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy of every `STRIDE`-th pixel; with it, the accuracy on the pixels of objects."""
        rng = np.random.default_rng([self.recipe.seed + 3, step])
        # a memory map is read in order
        rows = np.sort(rng.choice(len(self.data[0]), self.recipe.batch_size, replace=False))
        images, masks = batch_of(self.data, rows, rng.random(len(rows)) < 0.5)
        top, left = rng.integers(0, STRIDE, 2).tolist()
        self.model.backbone.requires_grad_(step >= self.recipe.frozen_steps)
        with torch.autocast("cpu", torch.bfloat16):
            scores = self.model.grid_logits(images)
        logits = pixel_logits(scores.float(), (masks.shape[1], masks.shape[2]), (top, left))
        truth = masks[:, top::STRIDE, left::STRIDE]
        right = (logits.argmax(1) == truth)[truth > 0].float().mean()
        return cross_entropy(logits, truth), {"object_pixels": right.item()}


@torch.inference_mode()
def confusion(model: Segmenter, data, batch_size: int = 50) -> np.ndarray:
    """Pixels by what they are and what the model takes them for, (K, K) int64, over all of `data`, in float32."""
    model.eval()
    found = np.zeros((model.num_classes,) * 2, np.int64)
    for start in range(0, len(data[0]), batch_size):
        rows = np.arange(start, min(start + batch_size, len(data[0])))
        images, masks = batch_of(data, rows, np.zeros(len(rows), bool))
        pairs = masks * model.num_classes + model(images).argmax(1)
        found += torch.bincount(pairs.flatten(), minlength=found.size).reshape(found.shape).numpy()
    return found


def mean_iou(model: Segmenter, data) -> float:
    """Mean over classes of intersection / union, in percent, without classes that are neither there nor predicted."""
    found = confusion(model, data)
    return 100 * metrics(np.stack([found.diagonal(), found.sum(0), found.sum(1)]))["miou"]


def copy_as_shipped(model: Segmenter) -> Segmenter:
    """A copy in eval mode with the weights rounded to float16."""
    copy = build_scenes_segmenter()
    copy.load_state_dict({name: value.half() for name, value in model.state_dict().items()})
    return copy.eval()


def prepare_model(recipe: Recipe, compiled: bool) -> Segmenter:
    """A model to start from."""
    torch.manual_seed(recipe.seed)
    model = build_scenes_segmenter()
    classifier, _ = load_model("scenes_vit", "embedded")
    model.backbone.load_state_dict({k: v for k, v in classifier.state_dict().items() if not k.startswith("head.")})
    for block in (*model.backbone.blocks, *model.decoder.blocks):
        block.attn.fused_attn = False  # the backward of fused attention is the slower one on CPUs, several times
    if compiled:
        for block in model.backbone.blocks:
            block.compile(dynamic=False)
    return model


def train(
    recipe: Recipe, out: Path, cache: Path, every: int, workers: int, compiled: bool, held_out: int = 1000
) -> None:
    """Train, from the checkpoint in `<cache>/segmenter` if there is one; snapshots to `out` every `every` steps.

    `held_out`: scenes of 'val' and of 'test' that the result is measured on.
    """
    job = SegmenterJob(recipe, segment_data("train", recipe.scenes, cache, workers), compiled)
    val, test = (segment_data(split, held_out, cache, workers) for split in ("val", "test"))

    def measure_and_write(step: int, **parts: tuple[np.ndarray, np.ndarray]) -> None:
        shipped = copy_as_shipped(job.model)
        mious = {f"{split}_miou": mean_iou(shipped, part) for split, part in parts.items()}
        write_snapshot(job.model, out, recipe, step, **mious)

    few = val[0][:200], val[1][:200]
    loop.train(job, cache / "segmenter", Progress(), every=every, saved=lambda step: measure_and_write(step, val=few))
    measure_and_write(recipe.steps, val=val, test=test)


if __name__ == "__main__":
    run_command_line(__doc__, Recipe(), train, out="safetensors file to write", every=250)
