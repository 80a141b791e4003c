"""What the embedded captioner is trained on: the scenes of `scene_batches` with all their captions, as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from suite.train.scene_batches import load_split, normalise
from tasks.scenes.drawing import PATTERNS, SIDE
from tasks.scenes.generator import VERSION, Scene, draw_scene
from tasks.scenes.wording import describe

BACKGROUND, MAIN, NEIGHBOUR, OTHER = range(4)  # what a patch shows, in the eyes of a caption
ROLES = 4
WORD_SCENES = 150  # training scenes whose captions make the vocabulary; the rarest of its words is in 11 of them


@dataclass(frozen=True)
class CaptionData:
    """N scenes. The first two axes of `words` are the scene and whether it is seen in a mirror.

    images: (N, 112, 112, 3) uint8. patches: (N, 14, 14) uint8, class of each patch + 1. geometry: (N, 14, 14, 3)
    float16. labels: (N,), class of the main object. facts: (N, 2) uint8, class of the object that captions name second
    and number of the background's pattern. captions: (N, 2, 5) bytes. words: (N, 2, T) uint8, the five captions of a
    scene one after the other.
    """

    images: np.ndarray
    patches: np.ndarray
    geometry: np.ndarray
    labels: np.ndarray
    facts: np.ndarray
    captions: np.ndarray
    words: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class CaptionBatch:
    """images (B, 3, 112, 112), words (B, T), and the targets of patches: (B, 196); geometry (B, 196, 3)."""

    images: Tensor
    words: Tensor
    patches: Tensor
    roles: Tensor
    patterns: Tensor
    geometry: Tensor


def describe_scene(scene: Scene) -> tuple[list[tuple[str, ...]], tuple[int, int]]:
    """Captions of the scene and of its mirror image; class of the main object's neighbour, number of the pattern."""
    mirrored = [replace(thing, cx=SIDE - thing.cx) for thing in scene.objects]
    others = [thing for thing in scene.objects if not thing.is_main]
    neighbour = max(others, key=lambda thing: thing.visible_area)
    captions = [scene.captions, describe(mirrored, scene.pattern)]
    return captions, (neighbour.class_id, PATTERNS.index(scene.pattern))


def _describe_row(job: tuple[str, int]) -> tuple[list[tuple[str, ...]], tuple[int, int]]:
    return describe_scene(draw_scene(*job))


def _load_descriptions(split: str, count: int, cache: Path, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Facts (N, 2) and captions (N, 2, 5) as bytes, found once and then read from `cache`."""
    names = [cache / f"v{VERSION}-{split}-{count}-{part}.npy" for part in ("facts", "captions")]
    if not all(name.exists() for name in names):
        cache.mkdir(parents=True, exist_ok=True)
        with get_context("spawn").Pool(workers) as pool:
            rows = pool.map(_describe_row, [(split, i) for i in range(count)], chunksize=64)
        np.save(names[0], np.array([facts for _, facts in rows], dtype=np.uint8))
        np.save(names[1], np.array([captions for captions, _ in rows], dtype=bytes))
    return np.load(names[0]), np.load(names[1])


def vocabulary() -> list[str]:
    """Every word of the scenes' captions."""
    return sorted({w for i in range(WORD_SCENES) for text in draw_scene("train", i).captions for w in text.split()})


def pack_captions(captions: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """Captions (..., 5) as bytes to their tokens one after the other, padded at the end: (..., T) uint8."""
    ids = {}  # the same captions come again and again
    for text in np.unique(captions):
        ids[text] = tokenizer(text.decode()).input_ids
    rows = [[token for text in group for token in ids[text]] for group in captions.reshape(-1, captions.shape[-1])]
    words = np.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id, np.uint8)
    for row, tokens in zip(words, rows):
        row[: len(tokens)] = tokens
    return words.reshape(*captions.shape[:-1], -1)


def caption_data(split: str, count: int, cache: Path, workers: int, tokenizer: PreTrainedTokenizerFast) -> CaptionData:
    """The first `count` scenes of a split; drawn once, images are memory-mapped."""
    facts, captions = _load_descriptions(split, count, cache, workers)
    images, patches, geometry, labels = load_split(split, count, cache, workers)
    words = pack_captions(captions, tokenizer)
    return CaptionData(images, patches, geometry, labels, facts, captions, words)


def batch_of(data: CaptionData, rows: np.ndarray, mirrored: np.ndarray) -> CaptionBatch:
    """Scenes `rows` (B,), those with `mirrored` (B,) seen in a mirror: left and right change in captions, too."""
    images, patches, geometry = (part[rows] for part in (data.images, data.patches, data.geometry))
    for part in (images, patches, geometry):
        part[mirrored] = part[mirrored, :, ::-1]
    geometry[mirrored, ..., 0] *= -1
    roles = np.where(patches > 0, OTHER, BACKGROUND)
    roles[patches == data.labels[rows, None, None] + 1] = MAIN
    roles[patches == data.facts[rows, 0, None, None] + 1] = NEIGHBOUR
    patterns = data.facts[rows, 1, None].astype(np.int64).repeat(roles[0].size, axis=1)
    return CaptionBatch(
        normalise(images),
        torch.from_numpy(data.words[rows, mirrored.astype(int)].astype(np.int64)),
        torch.from_numpy(patches.astype(np.int64)).flatten(1),
        torch.from_numpy(roles).flatten(1),
        torch.from_numpy(patterns),
        torch.from_numpy(geometry).float().flatten(1, 2),
    )
