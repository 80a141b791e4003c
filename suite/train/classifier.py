"""Trains the embedded scenes classifier: `python -m suite.train.classifier --out suite/weights/scenes_vit.safetensors`.

Recipe: AdamW, linear warm-up and cosine decay, gradient clipping, the eight flips and quarter turns as augmentation.
Two auxiliary heads, thrown away afterwards, give every patch token its own target (token labelling, Jiang et al. 2021,
arXiv:2104.10858): the class of the object seen in the patch, and whether it is the main object. Their dense gradient is
what makes so small a transformer learn within an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from suite.backbones.scenes_vit import build_scenes_vit
from tasks.scenes import NUM_CLASSES, VERSION, draw_scene

GRID, PATCH = 14, 8
MIN_COVER = 12  # of the 64 pixels of a patch: fewer object pixels than this and the patch counts as background


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learned."""

    scenes: int = 60_000
    steps: int = 5_000
    batch_size: int = 64
    lr: float = 1.5e-3
    warmup: int = 300
    weight_decay: float = 0.05
    token_weight: float = 1.0
    seed: int = 0


def patch_labels(mask: np.ndarray) -> np.ndarray:
    """Class that fills most object pixels of each 8 x 8 patch, 0 = background. (112, 112) -> (14, 14) uint8."""
    patches = mask.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID * GRID, -1).astype(np.int64)
    counts = np.zeros((GRID * GRID, NUM_CLASSES + 1), dtype=np.int64)
    np.add.at(counts, (np.arange(GRID * GRID)[:, None], patches), 1)
    best = counts[:, 1:].argmax(axis=1) + 1
    best[counts[:, 1:].sum(axis=1) < MIN_COVER] = 0
    return best.reshape(GRID, GRID).astype(np.uint8)


def _draw_row(job: tuple[str, int]) -> tuple[np.ndarray, np.ndarray, int]:
    scene = draw_scene(*job)
    return scene.image, patch_labels(scene.mask), scene.label


def drawn(split: str, count: int, cache: Path, workers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, 112, 112, 3), patch labels (N, 14, 14) and labels (N,) of a split; drawn once, then memory-mapped."""
    names = [cache / f"v{VERSION}-{split}-{count}-{part}.npy" for part in ("images", "patches", "labels")]
    if not names[2].exists():
        cache.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(names[0], "w+", np.uint8, (count, 112, 112, 3))
        patches, labels = np.empty((count, GRID, GRID), np.uint8), np.empty(count, np.int64)
        with get_context("spawn").Pool(workers) as pool:
            jobs = ((split, i) for i in range(count))
            for i, row in enumerate(pool.imap(_draw_row, jobs, chunksize=64)):
                images[i], patches[i], labels[i] = row
        images.flush()
        np.save(names[1], patches)
        np.save(names[2], labels)  # last: its presence says that the other two are whole
    return tuple(np.load(name, mmap_mode="r") for name in names)


class TokenLabelled(nn.Module):
    """The classifier plus the two auxiliary heads on its patch tokens."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit
        self.patch_head = nn.Linear(vit.embed_dim, NUM_CLASSES + 1)
        self.main_head = nn.Linear(vit.embed_dim, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 3, 112, 112) -> class logits (B, K), patch logits (B, 196, K + 1), main-object logits (B, 196)."""
        tokens = self.vit.forward_features(images)
        patches = tokens[:, self.vit.num_prefix_tokens :]
        return self.vit.forward_head(tokens), self.patch_head(patches), self.main_head(patches).squeeze(-1)


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]: mean = std = 0.5."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(127.5).sub_(1.0)


def turned(array: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight symmetries of the square, applied to axes 1 and 2."""
    array = np.rot90(array, turn % 4, axes=(1, 2))
    return array[:, :, ::-1] if turn >= 4 else array


def batch_of(data, order: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised images, patch labels (B, 196) and labels (B,), each eighth of the batch turned its own way."""
    images, patches, labels = data
    order = np.sort(order)  # a memory map is read front to back
    chosen, targets = images[order], patches[order]
    turns = rng.integers(0, 8, len(order))
    for turn in range(8):
        rows = np.flatnonzero(turns == turn)
        chosen[rows], targets[rows] = turned(chosen[rows], turn), turned(targets[rows], turn)
    flat = torch.from_numpy(targets.reshape(len(order), -1).astype(np.int64))
    return normalise(chosen), flat, torch.from_numpy(labels[order])


@torch.inference_mode()
def accuracy(model: nn.Module, data, batch_size: int = 128) -> float:
    """Top-1 accuracy in float32 over all of `data`."""
    model.eval()
    images, _, labels = data
    hits = 0
    for start in range(0, len(labels), batch_size):
        rows = slice(start, start + batch_size)
        hits += int((model(normalise(images[rows])).argmax(1).numpy() == labels[rows]).sum())
    return hits / len(labels)


def learning_rate(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def loss_of(model: TokenLabelled, batch, recipe: Recipe) -> torch.Tensor:
    images, patches, labels = batch
    with torch.autocast("cpu", torch.bfloat16):
        logits, patch_logits, main_logits = model(images)
    is_main = (patches == labels[:, None] + 1).float()
    token_loss = cross_entropy(patch_logits.float().flatten(0, 1), patches.flatten())
    main_loss = binary_cross_entropy_with_logits(main_logits.float(), is_main)
    return cross_entropy(logits.float(), labels, label_smoothing=0.05) + recipe.token_weight * (token_loss + main_loss)


def optimiser_of(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; biases, norms, the class token and position embeddings are not decayed."""
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 and "pos_embed" not in n and "cls_token" not in n]
    chosen = {id(p) for p in decayed}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)


def save_weights(vit: nn.Module, path: Path, facts: dict) -> None:
    """float16 safetensors with the facts of the training as metadata; replaces the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tensors = {name: value.detach().half().contiguous() for name, value in vit.state_dict().items()}
    save_file(tensors, partial, {key: json.dumps(value) for key, value in facts.items()})
    partial.replace(path)


def train(recipe: Recipe, out: Path, cache: Path, every: int, workers: int, compiled: bool) -> None:
    """Train, resuming from `<cache>/checkpoint.pt` if there is one; snapshots to `out` every `every` steps."""
    torch.manual_seed(recipe.seed)
    train_data = drawn("train", recipe.scenes, cache, workers)
    val_data, test_data = drawn("val", 1000, cache, workers), drawn("test", 1000, cache, workers)
    model = TokenLabelled(build_scenes_vit())
    for block in model.vit.blocks:
        block.attn.fused_attn = False  # the backward of fused attention is the slower one on CPUs, several times
        if compiled:
            block.compile()
    optimiser, checkpoint, first = optimiser_of(model, recipe), cache / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    started, running = time.time(), None
    for step in range(first, recipe.steps):
        # Seeded by the step, so that a resumed run sees the batches that the uninterrupted one would have seen.
        rng = np.random.default_rng([recipe.seed, step])
        batch = batch_of(train_data, rng.choice(recipe.scenes, recipe.batch_size, replace=False), rng)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        model.train()
        loss = loss_of(model, batch, recipe)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            rate = (step + 1 - first) * recipe.batch_size / (time.time() - started)
            print(f"step {step + 1}/{recipe.steps}  loss {running:.3f}  {rate:.0f} images/s", flush=True)
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").replace(checkpoint)
            last = step + 1 == recipe.steps
            facts = {"recipe": asdict(recipe), "generator_version": VERSION, "steps_done": step + 1, "dtype": "float16"}
            facts["val_top1"] = accuracy(model.vit, val_data if last else [part[:500] for part in val_data])
            if last:
                facts["test_top1"] = accuracy(model.vit, test_data)
            save_weights(model.vit, out, facts)
            print(f"saved at step {step + 1}: {facts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--cache", type=Path, required=True, help="folder for drawn scenes and the checkpoint")
    parser.add_argument("--every", type=int, default=500, help="steps between snapshots")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the blocks (needs a C++ compiler)")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = Recipe(**{name: getattr(args, name) for name in asdict(Recipe())})
    train(recipe, args.out, args.cache, args.every, args.threads, args.compile)


if __name__ == "__main__":
    main()
