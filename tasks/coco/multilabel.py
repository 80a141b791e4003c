"""Which classes COCO's images show, as papers on token reduction report it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from suite.contract.choice import evenly_spaced
from suite.contract.task import Sample
from tasks.coco.instances import read_instances
from tasks.multilabel import MultiLabelTask
from tasks.reading.image_files import load_image
from tasks.reading.images import TimmPreprocessing
from tasks.reading.trees.opening import open_tree
from tasks.reading.trees.tree import FileTree


class CocoMultiLabel(MultiLabelTask):
    """Mean average precision of the classes that images show, by COCO's instances.

    `data`: images with `instances_val2014.json`, `instances_val2017.json` or another file of that form, in it or beside
    it. `limit`: so many images, evenly spaced over their ids, which are sorted as text. Task options: `annotations`:
    the file, a name within the data or a path, where it is not found by itself. Classes are numbered by the order of
    their ids in the file (COCO: 80); images without any count, as showing none.
    """

    name = "coco-multilabel"
    default_model = "deit_small_patch16_224"
    tree: FileTree

    def __init__(self, data: str | None = None, limit: int | None = None, *, annotations: str | None = None) -> None:
        super().__init__(data, limit)
        self.tree = open_tree(data)
        found = read_instances(self.tree, annotations)
        self._files, self._names, self.notes = found.files, found.classes, found.notes
        self.num_classes = len(found.classes)
        self.samples = evenly_spaced(
            [Sample(id, found.labels[id], self.tree.where(found.files[id])) for id in sorted(found.files)], limit
        )

    @property
    def class_names(self) -> Sequence[str]:
        return self._names

    def files(self, sample: Sample) -> Sequence[str]:
        """The image; its classes are its label."""
        return (self._files[sample.id],)

    def load(self, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
        """The preprocessed image, (3, H, W) float32. Raises ReadError when it is missing, damaged or no image."""
        return load_image(self.tree, self._files[sample.id], sample, preprocessing)
