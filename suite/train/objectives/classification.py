"""Classification: timm's augmentations, soft targets, cross-entropy."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from timm.data import auto_augment, create_transform
from timm.data.mixup import Mixup
from torch import Tensor, nn

from suite.contract.task import Sample
from suite.errors import RequestError
from suite.tokens.grouping import full_precision
from suite.train.numbers import Numbers
from suite.train.objective import Examples, Objective
from suite.train.picture_cache import Pictures
from tasks.classification import ClassificationTask
from tasks.reading.images import TimmPreprocessing


def posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's operation, but for 0 bits, which it asks for at the largest magnitude and recent Pillow refuses: 1 bit."""
    return ImageOps.posterize(image, max(1, min(8, bits)))


auto_augment.NAME_TO_OP.update(dict.fromkeys(("Posterize", "PosterizeIncreasing"), posterize))


class Classification(Objective):
    """Targets are distributions over classes (B, K) float32: mixed (mixup, cutmix) and smoothed labels."""

    task_class, kind = ClassificationTask, "classification"

    def __init__(self, task: ClassificationTask, model: nn.Module, recipe: Numbers) -> None:
        super().__init__(task, model, recipe)
        self.preprocessing = TimmPreprocessing.of(model)
        self.pictures = Pictures(task)
        self.classes = task.num_classes
        if several := next((sample.id for sample in task.samples if isinstance(sample.label, tuple)), None):
            raise RequestError(f"sample {several!r} has several labels that are right; train on data with one each")
        if self.mixes and recipe.batch_size % 2:
            raise RequestError(f"batch_size={recipe.batch_size}: images are mixed in pairs; use an even number")
        try:
            _ = self.transform
        except Exception as error:  # timm reads the string piece by piece, and each can fail in its own way
            raise RequestError(
                f"randaugment={recipe.randaugment!r} is no augmentation of timm's: {error or type(error).__name__}; "
                "write for example rand-m9-mstd0.5-inc1, or '' for none"
            ) from error

    @property
    def mixes(self) -> bool:
        return bool(self.recipe.mixup or self.recipe.cutmix)

    @cached_property
    def transform(self) -> Any:
        """timm's training transform; without crops, that of evaluation."""
        if not self.recipe.crop:
            return self.preprocessing
        looks = self.preprocessing
        return create_transform(
            looks.input_size, is_training=True, interpolation=looks.interpolation, mean=looks.mean, std=looks.std,
            auto_augment=self.recipe.randaugment or None, color_jitter=self.recipe.jitter,
            re_prob=self.recipe.erasing, re_mode="pixel",
        )  # fmt: skip

    def example(self, sample: Sample) -> tuple[Tensor, int]:
        image = self.transform(self.pictures.image(sample))
        if not self.recipe.crop and torch.rand(()) < 0.5:
            image = image.flip(-1)
        return image, sample.label

    def prepare(self, batch: Examples) -> Examples:
        """Labels (B,) become targets (B, K)."""
        recipe, images = self.recipe, batch.images
        if self.mixes:
            mix = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=self.classes)
            images, targets = mix(images.clone(), batch.targets)
        else:
            targets = F.one_hot(batch.targets, self.classes).to(images.dtype)
            targets = targets * (1 - recipe.smoothing) + recipe.smoothing / self.classes
        return replace(batch, images=images, targets=targets)

    def predict(self, model: nn.Module, batch: Examples) -> Tensor:
        logits: Tensor = model(batch.images)
        return logits

    def criterion(self, logits: Tensor, batch: Examples) -> Tensor:
        """Mean cross-entropy of logits (B, K) with the batch's targets."""
        return F.cross_entropy(full_precision(logits), batch.targets)
