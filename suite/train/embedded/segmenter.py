"""Trains the embedded Segmenter: `python -m suite.train.embedded.segmenter --out FILE --cache FOLDER`.

The encoder starts from the embedded classifier, whose patch tokens were taught the class of what they show. First the
decoder alone learns to read them, then all is trained together, the encoder at a lower rate: it has yet to learn where
in a patch the outlines run. The loss is the cross-entropy of pixels in the enlarged masks. On cores shared
with other programs set OMP_WAIT_POLICY=passive.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from suite.backbones.segmenter import Segmenter
from suite.measure.heap import keep_freed_memory
from suite.models.load import load_model
from suite.models.scenes_segmenter import build_scenes_segmenter
from suite.train.embedded.classifier import snapshot
from suite.train.pixel_logits import STRIDE, pixel_logits
from suite.train.segment_batches import batch_of, segment_data
from tasks.segmentation_scoring import metrics


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learned, with the classifier's weights."""

    scenes: int = 30_000
    frozen_steps: int = 100
    joint_steps: int = 800
    batch_size: int = 64
    lr: float = 2.0e-3
    encoder_lr: float = 5.0e-4
    weight_decay: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.frozen_steps + self.joint_steps


def learning_rates(step: int, recipe: Recipe) -> tuple[float, float]:
    """Of the encoder and of the decoder. Frozen: warm-up over 50 steps. Joint: warm-up of the encoder over 100 steps,
    cosine decay of both to 1 %."""
    if step < recipe.frozen_steps:
        return 0.0, recipe.lr * min(1.0, (step + 1) / 50)
    step -= recipe.frozen_steps
    factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / max(1, recipe.joint_steps)))
    return recipe.encoder_lr * factor * min(1.0, (step + 1) / 100), recipe.lr * factor


def optimiser_of(model: Segmenter, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW in four groups: encoder and decoder, decayed and not (biases, norms, embeddings)."""
    groups = [{"params": [], "weight_decay": decay} for _ in range(2) for decay in (recipe.weight_decay, 0.0)]
    for name, parameter in model.named_parameters():
        kept = parameter.ndim < 2 or any(part in name for part in ("pos_embed", "cls_token", "cls_emb"))
        groups[2 * name.startswith("decoder.") + kept]["params"].append(parameter)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)


def train_step(model: Segmenter, optimiser, data, step: int, recipe: Recipe) -> np.ndarray:
    """One update. Returns the loss and the accuracy on the pixels of objects."""
    # Seeded by the step, so that a resumed run sees the batches that the uninterrupted one would have seen.
    rng = np.random.default_rng([recipe.seed + 3, step])
    rows = np.sort(rng.choice(len(data[0]), recipe.batch_size, replace=False))  # a memory map is read in order
    images, masks = batch_of(data, rows, rng.random(len(rows)) < 0.5)
    top, left = rng.integers(0, STRIDE, 2).tolist()
    for number, group in enumerate(optimiser.param_groups):
        group["lr"] = learning_rates(step, recipe)[number // 2]
    model.train()
    model.backbone.requires_grad_(step >= recipe.frozen_steps)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.grid_logits(images)
    logits, truth = pixel_logits(scores.float(), masks.shape[1:], (top, left)), masks[:, top::STRIDE, left::STRIDE]
    loss = cross_entropy(logits, truth)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    right = (logits.argmax(1) == truth)[truth > 0].float().mean()
    return np.array([loss.item(), right.item()])


@torch.inference_mode()
def confusion(model: nn.Module, data, batch_size: int = 50) -> np.ndarray:
    """Pixels by what they are and what the model takes them for, (K, K) int64, over all of `data`, in float32."""
    model.eval()
    found = np.zeros((model.num_classes,) * 2, np.int64)
    for start in range(0, len(data[0]), batch_size):
        rows = np.arange(start, min(start + batch_size, len(data[0])))
        images, masks = batch_of(data, rows, np.zeros(len(rows), bool))
        pairs = masks * model.num_classes + model(images).argmax(1)
        found += torch.bincount(pairs.flatten(), minlength=found.size).reshape(found.shape).numpy()
    return found


def mean_iou(model: nn.Module, data) -> float:
    """Mean over classes of intersection / union, in percent, without classes that are neither there nor predicted."""
    found = confusion(model, data)
    return 100 * metrics(np.stack([found.diagonal(), found.sum(0), found.sum(1)]))["miou"]


def as_shipped(model: Segmenter) -> Segmenter:
    """A copy in eval mode with the weights rounded to float16."""
    copy = build_scenes_segmenter()
    copy.load_state_dict({name: value.half() for name, value in model.state_dict().items()})
    return copy.eval()


def prepare(recipe: Recipe, compiled: bool) -> Segmenter:
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
    """Train, resuming from `<cache>/segmenter.pt` if there is one; snapshots to `out` every `every` steps.

    `held_out`: scenes of 'val' and of 'test' that the result is measured on.
    """
    data = segment_data("train", recipe.scenes, cache, workers)
    val, test = (segment_data(split, held_out, cache, workers) for split in ("val", "test"))
    model = prepare(recipe, compiled)
    optimiser, checkpoint, first = optimiser_of(model, recipe), cache / "segmenter.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    started, running = time.time(), None
    for step in range(first + 1, recipe.steps + 1):
        now = train_step(model, optimiser, data, step - 1, recipe)
        running = now if running is None else 0.98 * running + 0.02 * now
        if step % 50 == 0:
            pace = (time.time() - started) / (step - first)
            told = "loss {:.3f}  object pixels {:.3f}".format(*running)
            print(f"step {step}/{recipe.steps}  {told}  {pace:.3f} s", flush=True)
        if step % every == 0 or step == recipe.steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").replace(checkpoint)
            miou = mean_iou(as_shipped(model), [part[:200] for part in val])
            snapshot(model, out, recipe, step, val_miou=miou)
    mious = {f"{split}_miou": mean_iou(as_shipped(model), part) for split, part in (("val", val), ("test", test))}
    snapshot(model, out, recipe, max(first, recipe.steps), **mious)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--cache", type=Path, required=True, help="folder for drawn scenes and the checkpoint")
    parser.add_argument("--every", type=int, default=250, help="steps between snapshots")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the blocks (needs a C++ compiler)")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    recipe = Recipe(**{name: getattr(args, name) for name in asdict(Recipe())})
    train(recipe, args.out, args.cache, args.every, args.threads, args.compile)


if __name__ == "__main__":
    main()
