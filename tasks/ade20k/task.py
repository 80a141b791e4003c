"""ADE20K's scene parsing, and any data set of the same form, read strictly from a folder, a zip or a tar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from suite.contract.choice import evenly_spaced, spread
from suite.contract.task import Sample
from tasks.ade20k.classes import NUM_CLASSES, ade_names, ade_palette
from tasks.ade20k.index import Naming, find_pairs
from tasks.ade20k.numbering import find_numbering, look_into
from tasks.reading.image_files import read_file
from tasks.reading.images import decode
from tasks.reading.masks import class_indices, mask_size, read_mask
from tasks.reading.trees.opening import open_tree
from tasks.reading.trees.tree import FileTree
from tasks.segmentation import RESTORE, SegmentationTask

Content = TypeVar("Content")


class Ade20k(SegmentationTask):
    """150 classes of stuff and things. Labels 1..150 of a mask are the classes; 0, "other", is not scored, nor is 255.
    Masks whose labels count from 0, as other libraries prepare them, are known by the labels that occur.

    `data`: the folder, zip or tar of ADEChallengeData2016, with `images/validation/*.jpg` and
    `annotations/validation/*.png`. `limit`: so many images, evenly spaced over their sorted names. Task options:
    `split`: 'validation' (default, 2000 images) or 'training'. `reduce_zero_label`: true where 1..150 are the classes,
    false where 0..149 are; None: as the labels that occur say. `mask_suffix`: what masks' names have beyond those of
    their images, such as '_labelTrainIds'; None: found. `unpaired`: 'refuse' (default), or 'skip': images without a
    mask, and masks without an image, are left out. `restore`: see `SegmentationTask`.
    """

    name = "ade20k"
    default_model = "seg_small_mask_16"
    training = MappingProxyType({"split": "training"})
    num_classes = NUM_CLASSES
    tree: FileTree

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        split: str = "validation",
        reduce_zero_label: bool | None = None,
        mask_suffix: str | None = None,
        unpaired: str = "refuse",
        restore: str = RESTORE[0],
    ) -> None:
        super().__init__(data, limit, restore=restore)
        self.tree = open_tree(data)
        self._pairs, self.notes = find_pairs(self.tree, split, Naming(mask_suffix, unpaired))
        samples = [Sample(id, pair.label, self.tree.where(pair.image)) for id, pair in self._pairs.items()]
        looks = (partial(self._read_mask, sample, look_into) for sample in spread(samples))
        self.reduce_zero_label, note = find_numbering(looks, reduce_zero_label, str(self.tree.location))
        self.notes.append(note)
        self.samples = evenly_spaced(samples, limit)

    @property
    def class_names(self) -> tuple[str, ...]:
        """As mmsegmentation has them."""
        return ade_names()

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """As mmsegmentation has it."""
        return ade_palette()

    def protocol(self) -> dict[str, Any]:
        """And which labels are the classes, where they are not ADE20K's own."""
        return super().protocol() | ({} if self.reduce_zero_label else {"reduce_zero_label": False})

    def files(self, sample: Sample) -> Sequence[str]:
        """The photograph and its mask."""
        return (self._pairs[sample.id].image, self._pairs[sample.id].mask)

    def image(self, sample: Sample) -> Image.Image:
        """The photograph; greyscale is repeated. Raises ReadError when it is missing, damaged or no image."""
        return read_file(self.tree, self._pairs[sample.id].image, sample, decode)

    def read_truth(self, sample: Sample) -> np.ndarray:
        """(H, W) uint8 classes 0..149, or 255. Raises ReadError when the mask is missing, damaged or no mask."""
        return self._read_mask(
            sample, lambda data: class_indices(read_mask(data), self.num_classes, self.reduce_zero_label)
        )

    def size(self, sample: Sample) -> tuple[int, int]:
        """That of the mask, from its header."""
        return self._read_mask(sample, mask_size)

    def _read_mask(self, sample: Sample, read: Callable[[bytes], Content]) -> Content:
        return read_file(self.tree, self._pairs[sample.id].mask, sample, read)
