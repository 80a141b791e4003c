"""Features of ImageNet's images, or any data set of the same form, with its training images as the bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from suite.contract.task import Sample
from suite.errors import RequestError
from tasks.features.protocols import LABELLED, PROTOCOLS
from tasks.features.task import BANKS, FeatureTask, report_of
from tasks.imagenet.task import ImageNet
from tasks.reading.image_files import load_image
from tasks.reading.images import TimmPreprocessing
from tasks.reading.trees.beside import TreeBeside
from tasks.reading.trees.tree import FileTree

OF_BANK = "bank:"


class ImageNetFeatures(FeatureTask):
    """Features of labelled image files, judged by the nearest training images and by the unreduced model's.

    `data`, `limit`, and the task options `labels` and `num_classes` (for both): as of task 'imagenet'. `bank`: the
    training images, in any form that `data` may have (`train` in `data`). `bank_limit`: so many of them, evenly spaced.
    `bank_by`: 'reduced' (default: by the same reducer at the same rate) or 'unreduced'. `protocols`:
    'knn,retrieval,probe,fidelity' or some of these; methods are compared by the first.
    """

    name = "imagenet_features"
    default_model = "vit_small_patch14_dinov2"
    offered = LABELLED
    shown = report_of([PROTOCOLS[name] for name in LABELLED])
    tree: FileTree

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        labels: str | None = None,
        num_classes: int | None = None,
        bank: str | None = None,
        bank_limit: int | None = None,
        bank_by: str = BANKS[0],
        protocols: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(data, limit, protocols, bank_by)
        self._scored = ImageNet(data, limit, labels=labels, num_classes=num_classes)
        self._bank = ImageNet(bank or _train_in(data), bank_limit, labels=labels, num_classes=num_classes)
        if self._bank.num_classes != self._scored.num_classes:
            raise RequestError(
                f"bank '{bank or _train_in(data)}' has {self._bank.num_classes} classes, and the data "
                f"{self._scored.num_classes}; name training images of the same classes with --task-option bank=FOLDER"
            )
        self.tree = TreeBeside(self._scored.tree, self._bank.tree, OF_BANK)
        self.samples = self._scored.samples
        self.support = [replace(sample, id=OF_BANK + sample.id) for sample in self._bank.samples]
        self.notes = [*self._scored.notes, *(f"bank: {note}" for note in self._bank.notes), *self.notes]

    def files(self, sample: Sample) -> Sequence[str]:
        """The image."""
        inside = sample.id.removeprefix(OF_BANK)
        if inside == sample.id:
            return self._scored.files(sample)
        return [OF_BANK + name for name in self._bank.files(replace(sample, id=inside))]

    def load(self, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
        """The preprocessed image, (3, H, W) float32. Raises ReadError when it is missing, damaged or no image."""
        return load_image(self.tree, self.files(sample)[0], sample, preprocessing)


def _train_in(data: str | None) -> str:
    """Where the training images are that nobody names. RequestError where there are none."""
    folder = Path(data or "") / "train"
    if not folder.is_dir():
        raise RequestError(f"data '{data}' has no folder train; name training images with --task-option bank=FOLDER")
    return str(folder)
