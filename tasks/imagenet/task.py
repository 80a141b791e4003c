"""ImageNet classification, and any data set of the same form, read strictly from whatever it is stored in."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa
from torch import Tensor, nn

from suite.contract.choice import evenly_spaced
from suite.contract.task import Sample
from suite.errors import RequestError
from tasks.classification import ClassificationTask
from tasks.imagenet.corrupted import ALEXNET, MCE
from tasks.imagenet.folders import order_by_names
from tasks.imagenet.index import Index, Options, build_index, occurring
from tasks.imagenet.labels import IMAGENET_CLASSES, INDEX, first_names
from tasks.reading.image_files import load_image
from tasks.reading.images import TimmPreprocessing, undecoded
from tasks.reading.trees.opening import open_shards
from tasks.reading.trees.tree import FileTree

GROUND_TRUTH_IDS = ("devkit", "sorted", INDEX)
ALL, PRESENT = "all", "present"
CORRUPTION = "corruption"  # the column of outcomes


class ImageNet(ClassificationTask):
    """Top-1 and top-5 on labelled image files.

    `data`: class folders (`<synset>/*`, also under `val/`), or a flat folder with a label file (`name,label` or
    `name label` a line, or ILSVRC2012_validation_ground_truth.txt with the devkit's meta.mat) or with the synset in
    every name, or a zip or tar of either; or a WebDataset (tars of `KEY.jpg` with `KEY.cls` or `KEY.json`) or Hugging
    Face's Parquet files (columns `image` and `label`): one of them, a folder, or a pattern such as
    `val-{000..063}.tar`. `limit`: so many images, evenly spaced over their order, which is that of classes and names.
    Task options: `labels`: the file that says the classes of images or of class folders, where it is not found by
    itself. `classes`: of synset folders of fewer than 1000 classes only these compete, the model's other logits are
    left out; 'all': all compete; 'present': only those that occur do, in any layout. `ground_truth_ids`: 'devkit'
    (default: ILSVRC2012_IDs, needs meta.mat), 'sorted' (ids are ranks 1..1000 of the sorted synsets) or 'index'
    (classes 0..999, also where no label is 0).
    `num_classes`: for data whose classes are not ImageNet's 1000: folders are labelled by the rank of their names,
    other labels go up to num_classes-1. `corruptions`: of ImageNet-C's root, 'all' or names, each at all severities;
    mCE is reported.
    """

    name = "imagenet"
    default_model = "deit_small_patch16_224"
    tree: FileTree

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        labels: str | None = None,
        ground_truth_ids: str | None = None,
        num_classes: int | None = None,
        classes: str | None = None,
        corruptions: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(data, limit)
        if classes not in (None, ALL, PRESENT):
            raise RequestError(f"classes '{classes}' is unknown; use all or present")
        if ground_truth_ids not in (None, *GROUND_TRUTH_IDS):
            raise RequestError(f"ground_truth_ids '{ground_truth_ids}' is unknown; use devkit, sorted or index")
        num_classes = _positive(num_classes)
        self.tree = open_shards(data)
        try:
            index = build_index(self.tree, Options(labels, ground_truth_ids, num_classes, corruptions))
        except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise RequestError(f"labels of data '{data}' cannot be read: {error}; repair the label file") from error
        self._root = f"{index.root}/" if index.root else ""
        self._notes = [*self.tree.notes, *index.notes, *undecoded(index.labels)]
        self._classes, self._by_folder = classes, index.by_folder
        self._follow(index)
        samples = [Sample(id, label, self.tree.where(self._root + id)) for id, label in index.labels.items()]
        self.samples = evenly_spaced(samples, limit)
        self._corruptions = index.corruptions
        if index.corruptions:
            self.shown = replace(self.shown, metrics=(*self.shown.metrics, MCE))  # type: ignore[misc]
            self.outcomes = self.outcomes.append(pa.field(CORRUPTION, pa.string()))  # type: ignore[misc]

    def score(self, outputs: Tensor, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows as of any classification, with what was done to the image, of ImageNet-C."""
        rows = super().score(outputs, samples)
        if self._corruptions:
            rows = [row | {CORRUPTION: self._corruptions[row["id"]]} for row in rows]
        return rows

    def columns(self, measured: Tensor, samples: Sequence[Sample]) -> pa.RecordBatch:
        """See `score`."""
        rows = super().columns(measured, samples)
        if not self._corruptions:
            return rows
        done = pa.array([self._corruptions[sample.id] for sample in samples], pa.string())
        return pa.RecordBatch.from_arrays([*rows.columns, done], schema=self.outcomes)

    def counts(self, rows: pd.DataFrame) -> dict[str, int]:
        """Of what the metrics' needs name, mCE's corruptions too."""
        known = set(rows[CORRUPTION]) & ALEXNET.keys() if self._corruptions else ()
        return {**super().counts(rows), "corruptions": len(known)}

    def _said_of_classes(self) -> str:
        if not self.competing:
            return ""
        left = "the model's other logits are left out, as the makers of such sets do (--classes all: all compete)"
        return f"Only the {len(self.competing)} classes of the data compete for a score; {left}"

    def _follow(self, index: Index) -> None:
        """Take over which classes there are, which compete, and what is to be said of both."""
        self.num_classes, self._at_least, self._ours = index.num_classes, index.at_least, index.ours
        self.competing = _competing(index, self._classes)
        self.said = [said for said in (index.said, self._said_of_classes()) if said]
        self.notes = [*self._notes, *self.said]

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model outputs as many classes as there are, or those that the data speak of.

        Where its weights came with names of its classes, and the class folders have these, they go before other orders.
        """
        names: Sequence[str] = getattr(model, "label_names", ())
        order = order_by_names(list(self._by_folder), names) if self._by_folder and names else None
        if order and dict(order.classes) != dict(self._by_folder):
            part = occurring(order.classes) if self.competing else None
            labels = {sample.id: order.classes[sample.id.split("/")[0]] for sample in self.samples}
            self.samples = [replace(sample, label=labels[sample.id]) for sample in self.samples]
            self._by_folder = order.classes
            self._follow(Index("", labels, order.num_classes, said=order.said, classes=part, ours=False))
        classes = getattr(model, "num_classes", None)
        if self._at_least and isinstance(classes, int):
            self.num_classes = max(self.num_classes, classes)
        super().check_model(model)

    def remedy(self, classes: int) -> str:
        """What to do where a model outputs another number of classes."""
        if self.num_classes == IMAGENET_CLASSES and classes == len(self._by_folder):
            return (
                f"if its classes are these folders alone, say --task-option num_classes={classes}: they are numbered "
                "by a file beside them such as class_to_idx.json, else by the rank of their names"
            )
        if self.num_classes == IMAGENET_CLASSES:
            return "use a model with a head of ImageNet-1k's classes"
        if not self._by_folder:
            return super().remedy(classes)
        return (
            f"use a model of {self.num_classes} classes, or say which of the model's each class is with "
            "--task-option labels=FILE, lines 'folder,class' or 'image,class'"
        )

    @property
    def class_names(self) -> Sequence[str]:
        """The first of each class' names in ImageNet; none of other data."""
        if self.num_classes != IMAGENET_CLASSES or not self._ours:
            return ()
        return first_names()

    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> TimmPreprocessing:
        """timm's own evaluation preprocessing for the model."""
        return TimmPreprocessing.of(model, image_size)

    def files(self, sample: Sample) -> Sequence[str]:
        """The image."""
        return (self._root + sample.id,)

    def load(self, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
        """The preprocessed image, (3, H, W) float32. Raises ReadError when it is missing, damaged or no image."""
        return load_image(self.tree, self._root + sample.id, sample, preprocessing)


def _competing(index: Index, classes: str | None) -> tuple[int, ...] | None:
    """The classes that compete, where these are not all. Of a single class every prediction would be right."""
    found = {None: index.classes, ALL: None, PRESENT: occurring(index.labels)}[classes]
    return tuple(sorted(found)) if found and 1 < len(found) < index.num_classes else None


def _positive(num_classes: int | str | None) -> int | None:
    if num_classes is None:
        return None
    if not str(num_classes).isdigit() or int(num_classes) < 1:
        raise RequestError(f"num_classes '{num_classes}' is not a number of classes; use an integer of 1 or more")
    return int(num_classes)
