"""What the embedded classifier is trained on: drawn scenes with a target for every patch, as batches of tensors."""

from __future__ import annotations

import math
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from tasks.scenes.generator import NUM_CLASSES, VERSION, Scene, draw_scene

GRID, PATCH, WINDOW = 14, 8, 7  # patches on a side of a scene, pixels of a patch, patches of a window
MIN_COVER = 12  # of the 64 pixels of a patch: fewer object pixels than this and the patch counts as background


def patch_labels(mask: np.ndarray) -> np.ndarray:
    """Class that fills most object pixels of each 8 x 8 patch, 0 = background. (112, 112) -> (14, 14) uint8."""
    patches = mask.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID * GRID, -1).astype(np.int64)
    counts = np.zeros((GRID * GRID, NUM_CLASSES + 1), dtype=np.int64)
    np.add.at(counts, (np.arange(GRID * GRID)[:, None], patches), 1)
    best = counts[:, 1:].argmax(axis=1) + 1
    best[counts[:, 1:].sum(axis=1) < MIN_COVER] = 0
    return best.reshape(GRID, GRID).astype(np.uint8)


def patch_geometry(scene: Scene, labels: np.ndarray) -> np.ndarray:
    """Where the object seen in each patch lies: offset of its centre and its size, (14, 14, 3) float16.

    Offsets (x, y) are in units of 16 pixels, size is log(visible area / 500 pixels). Zero on background.
    """
    rows, cols = np.mgrid[0:GRID, 0:GRID] * PATCH + PATCH / 2
    found, nearest = np.zeros((GRID, GRID, 3), np.float16), np.full((GRID, GRID), np.inf)
    for thing in scene.objects:
        dx, dy = (thing.cx - cols) / 16, (thing.cy - rows) / 16
        ours = (labels == thing.class_id + 1) & (np.hypot(dx, dy) < nearest)  # two objects may be of one class
        nearest[ours] = np.hypot(dx, dy)[ours]
        size = np.full_like(dx, math.log(max(1, thing.visible_area) / 500))
        found[ours] = np.stack([dx, dy, size], axis=-1)[ours]
    return found


def _draw_row(job: tuple[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    scene = draw_scene(*job)
    labels = patch_labels(scene.mask)
    return scene.image, labels, patch_geometry(scene, labels), scene.label


def load_split(split: str, count: int, cache: Path, workers: int) -> tuple[np.ndarray, ...]:
    """A split, drawn once and then memory-mapped.

    Images (N, 112, 112, 3), patch labels (N, 14, 14), patch geometry (N, 14, 14, 3), labels (N,).
    """
    names = [cache / f"v{VERSION}-{split}-{count}-{part}.npy" for part in ("images", "patches", "geometry", "labels")]
    if not names[-1].exists():
        cache.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(names[0], "w+", np.uint8, (count, 112, 112, 3))
        patches, labels = np.empty((count, GRID, GRID), np.uint8), np.empty(count, np.int64)
        geometry = np.empty((count, GRID, GRID, 3), np.float16)
        with get_context("spawn").Pool(workers) as pool:
            jobs = ((split, i) for i in range(count))
            for i, row in enumerate(pool.imap(_draw_row, jobs, chunksize=64)):
                images[i], patches[i], geometry[i], labels[i] = row
        images.flush()
        drawn: tuple[np.ndarray, ...] = (patches, geometry, labels)
        for name, array in zip(names[1:], drawn):
            np.save(name, array)  # labels last: their presence says that the others are whole
    return tuple(np.load(name, mmap_mode="r") for name in names)


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]: mean = std = 0.5."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(127.5).sub_(1.0)


def window_corners(patches: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Top and left patch of a window near the main object of each scene, (B, 2); it may cut the object off."""
    corners = np.empty((len(labels), 2), np.int64)
    for i, label in enumerate(labels):
        seen = np.argwhere(patches[i] == label + 1)
        centre = seen.mean(axis=0) if len(seen) else np.full(2, GRID / 2)
        corners[i] = np.rint(centre - WINDOW // 2 + rng.integers(-2, 3, 2))
    return corners.clip(0, GRID - WINDOW)


def batch_of(data, order: np.ndarray, rng: np.random.Generator, windowed: bool) -> tuple[torch.Tensor, ...]:
    """Images, grid positions (B, P), patch labels (B, P), geometry (B, P, 3), labels (B,); half of them mirrored."""
    images, patches, geometry, labels = (part[np.sort(order)] for part in data)  # a memory map is read in order
    rows = rng.random(len(order)) < 0.5
    images[rows], patches[rows], geometry[rows] = (part[rows, :, ::-1] for part in (images, patches, geometry))
    geometry[rows, ..., 0] *= -1
    side = WINDOW if windowed else GRID
    corners = window_corners(patches, labels, rng) if windowed else np.zeros((len(order), 2), np.int64)
    grid = corners[:, :, None] + np.arange(side)
    where = (np.arange(len(order))[:, None, None], grid[:, 0, :, None], grid[:, 1, None, :])
    pixels = images.reshape(-1, GRID, PATCH, GRID, PATCH, 3).swapaxes(2, 3)[where]
    images = pixels.swapaxes(2, 3).reshape(len(order), side * PATCH, side * PATCH, 3)
    return (
        normalise(images),
        torch.from_numpy(where[1] * GRID + where[2]).flatten(1),
        torch.from_numpy(patches[where].astype(np.int64)).flatten(1),
        torch.from_numpy(geometry[where]).float().flatten(1, 2),
        torch.from_numpy(labels),
    )
