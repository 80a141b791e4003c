"""What the embedded Segmenter is trained on: the scenes of `scene_batches` with the class of every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from suite.train.scene_batches import load_split, normalise
from tasks.scenes.drawing import SIDE
from tasks.scenes.generator import VERSION, scene_mask


def _all_masks(split: str, count: int, cache: Path) -> np.ndarray:
    """Masks (N, 112, 112) uint8, drawn once and then memory-mapped."""
    name = cache / f"v{VERSION}-{split}-{count}-masks.npy"
    if not name.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = name.with_suffix(".partial")
        masks = np.lib.format.open_memmap(partial, "w+", np.uint8, (count, SIDE, SIDE))
        for i in range(count):
            masks[i] = scene_mask(split, i)
        masks.flush()
        partial.replace(name)  # its presence says that it is whole
    return np.load(name, mmap_mode="r")


def segment_data(split: str, count: int, cache: Path, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` scenes of a split: images (N, 112, 112, 3) and masks (N, 112, 112), uint8, memory-mapped."""
    return load_split(split, count, cache, workers)[0], _all_masks(split, count, cache)


def batch_of(data: tuple[np.ndarray, np.ndarray], rows: np.ndarray, mirrored: np.ndarray) -> tuple[Tensor, Tensor]:
    """Scenes `rows` (B,), those with `mirrored` (B,) seen in a mirror: images (B, 3, H, W), masks (B, H, W) int64."""
    images, masks = (part[rows] for part in data)
    for part in (images, masks):
        part[mirrored] = part[mirrored, :, ::-1]
    return normalise(images), torch.from_numpy(masks.astype(np.int64))
