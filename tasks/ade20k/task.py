"""ADE20K's scene parsing, and any data set of the same form, read strictly from a folder, a zip or a tar."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from PIL import Image

from suite.contract.task import Sample, evenly_spaced
from tasks.ade20k.classes import NUM_CLASSES, ade_names, ade_palette
from tasks.ade20k.index import find_pairs
from tasks.reading.image_files import read_file
from tasks.reading.images import decode
from tasks.reading.masks import mask_size, read_mask, reduce_zero_label
from tasks.reading.trees.opening import open_tree
from tasks.reading.trees.tree import FileTree
from tasks.segmentation import RESTORE, SegmentationTask


class Ade20k(SegmentationTask):
    """150 classes of stuff and things. Labels 1..150 of a mask are the classes; 0, "other", is not scored, nor is 255.

    `data`: the folder, zip or tar of ADEChallengeData2016, with `images/validation/*.jpg` and
    `annotations/validation/*.png`. `limit`: so many images, evenly spaced over their sorted names. Task options:
    `split`: 'validation' (default, 2000 images) or 'training'. `restore`: see `SegmentationTask`.
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
        restore: str = RESTORE[0],
    ) -> None:
        super().__init__(data, limit, restore=restore)
        self.tree = open_tree(data)
        self._pairs, self.notes = find_pairs(self.tree, split)
        samples = [Sample(id, pair.label, self.tree.where(pair.image)) for id, pair in self._pairs.items()]
        self.samples = evenly_spaced(samples, limit)

    @property
    def class_names(self) -> tuple[str, ...]:
        """As mmsegmentation has them."""
        return ade_names()

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """As mmsegmentation has it."""
        return ade_palette()

    def files(self, sample: Sample) -> Sequence[str]:
        """The photograph and its mask."""
        return (self._pairs[sample.id].image, self._pairs[sample.id].mask)

    def image(self, sample: Sample) -> Image.Image:
        """The photograph; greyscale is repeated. Raises ReadError when it is missing, damaged or no image."""
        return read_file(self.tree, self._pairs[sample.id].image, sample, decode)

    def read_truth(self, sample: Sample) -> np.ndarray:
        """(H, W) uint8 classes 0..149, or 255. Raises ReadError when the mask is missing, damaged or no mask."""
        return read_file(
            self.tree,
            self._pairs[sample.id].mask,
            sample,
            lambda data: reduce_zero_label(read_mask(data), self.num_classes),
        )

    def size(self, sample: Sample) -> tuple[int, int]:
        """That of the mask, from its header."""
        return read_file(self.tree, self._pairs[sample.id].mask, sample, mask_size)
