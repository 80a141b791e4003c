"""Segmentation: the class of every pixel, through whatever reducer is attached and through the tokens it gives back."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suite.contract.task import ReadError, Sample
from suite.tokens.grouping import full_precision
from suite.train.numbers import Numbers
from suite.train.objective import Examples, Objective
from suite.train.photometric import distorted
from suite.train.picture_cache import Kept, Pictures
from suite.train.pixel_logits import pixel_logits
from tasks.reading.images import UnreadableImage
from tasks.reading.masks import IGNORED
from tasks.segmentation import SegmentationTask
from tasks.windows import resized_size

if TYPE_CHECKING:
    from suite.backbones.segmenter import Segmenter

RATIOS = 0.5, 2.0  # of the size that an image has in evaluation
TRIES, LARGEST_SHARE = 10, 0.75  # a crop is drawn again where one class has more of its pixels


class Segmentation(Objective):
    """Targets are masks (B, S, S) uint8, 255 where no class is taught.

    Augmented as Segmenter was trained (Strudel et al., ICCV 2021; mmsegmentation's `segmenter` recipes):
    resized to 0.5 to 2.0 times the size of evaluation, a random crop of one window, mirrored half of the time,
    photometric distortion unless the recipe's `jitter` is 0. Without the recipe's `crop`: any window of the image at
    its size of evaluation, mirrored half of the time. What a window has beyond the image is grey, and not taught.
    """

    task_class, kind = SegmentationTask, "segmentation"

    def __init__(self, task: SegmentationTask, model: nn.Module, recipe: Numbers) -> None:
        super().__init__(task, model, recipe)
        self.preprocessing, self.kept = task.preprocessing(model), Kept()
        self.pictures = Pictures(task, self.kept)

    def example(self, sample: Sample) -> tuple[Tensor, Tensor]:
        pixels = np.array(self.pictures.image(sample))
        truth = self.kept.get((sample.id, "mask"), lambda: cast(SegmentationTask, self.task).read_truth(sample))
        window, ratio = self.preprocessing.window, random.uniform(*RATIOS) if self.recipe.crop else 1.0
        try:
            height, width = resized_size(truth.shape[0], truth.shape[1], window)
        except UnreadableImage as error:
            raise ReadError(sample.id, sample.path, str(error)) from error
        size = max(1, round(ratio * height)), max(1, round(ratio * width))
        image, mask = resized(torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(np.array(truth)), size)
        image, mask = cropped(image, mask, window, TRIES if self.recipe.crop else 1)
        if random.random() < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        if self.recipe.crop and self.recipe.jitter:
            image = distorted(image)
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.preprocessing.mean, self.preprocessing.std))
        image = (image / 255 - mean) / std
        right, below = window - image.shape[2], window - image.shape[1]
        return F.pad(image, (0, right, 0, below)), F.pad(mask, (0, right, 0, below), value=IGNORED)

    def join(self, targets) -> Tensor:
        return torch.stack(list(targets))

    def terms(self, batch: Examples) -> Tensor:
        """Pixels that have a class."""
        return (batch.targets != IGNORED).sum()

    def predict(self, model: nn.Module, batch: Examples) -> Tensor:
        """Those of every patch, (B, K, rows, columns)."""
        return cast("Segmenter", model).grid_logits(batch.images)

    def criterion(self, logits: Tensor, batch: Examples) -> Tensor:
        """Mean cross-entropy of the pixels that have a class; 0 where none has."""
        truth = batch.targets.long()
        with torch.autocast(logits.device.type, enabled=False):
            pixels = pixel_logits(full_precision(logits), truth.shape[1:], (0, 0), stride=1)
            total = F.cross_entropy(pixels, truth, ignore_index=IGNORED, reduction="sum")
        return batch.mean(total, self.terms(batch))


def resized(image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Image (3, H, W) and mask (H, W), uint8, at another size: float32, bilinear as in evaluation; uint8, nearest."""
    image = image.float()
    if size == tuple(mask.shape):
        return image, mask
    image = F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
    return image, F.interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]


def cropped(image: Tensor, mask: Tensor, window: int, tries: int) -> tuple[Tensor, Tensor]:
    """The same random part of both, `window` pixels a side at most, and one of several classes if `tries` find it."""
    for _ in range(tries):
        top, left = (random.randint(0, max(0, side - window)) for side in mask.shape)
        part = mask[top : top + window, left : left + window]
        counts = torch.bincount(part.flatten())[:IGNORED]
        if (counts > 0).sum() > 1 and counts.max() < LARGEST_SHARE * counts.sum():
            break
    return image[:, top : top + window, left : left + window], part
