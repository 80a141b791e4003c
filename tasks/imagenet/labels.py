"""Labels that come in a file: a CSV of names, or the ground truth of ImageNet's devkit.

ImageNet-1k class indices 0..999 are the ranks of the sorted synsets, the order that timm's models were
trained with. The devkit counts differently: its ground truth holds ILSVRC2012_IDs 1..1000, whose order is
its own and is written in `meta.mat` alone.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.io
from timm.data import ImageNetInfo

from suite.errors import RequestError

IMAGENET_CLASSES = 1000
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d+)\.\w+")


@cache
def synset_index() -> dict[str, int]:
    """ImageNet-1k synset -> class index 0..999, from timm's own list."""
    return {synset: index for index, synset in enumerate(ImageNetInfo().label_names())}


@dataclass(frozen=True)
class LabelFile:
    """A label file that was found: where it is, its text, and the meta.mat beside it, if any."""

    address: str
    text: str
    meta: bytes | None = None

    @property
    def is_csv(self) -> bool:
        return self.address.lower().endswith(".csv")


def read_csv(file: LabelFile, num_classes: int, images: frozenset[str]) -> dict[str, int]:
    """Name -> label, in the order of the file, from lines `name,label`; further columns are ignored.

    A label is a class index 0..num_classes-1 or, for ImageNet's 1000 classes, a synset (of several words
    the first counts). The first line may be a header. Raises RequestError naming the line that is wrong.
    """
    labels: dict[str, int] = {}
    try:
        rows = [(number, row) for number, row in enumerate(csv.reader(io.StringIO(file.text)), 1) if any(row)]
    except csv.Error as error:
        raise RequestError(f"label file '{file.address}' is no CSV ({error}); write lines 'name,label'") from error
    for position, (number, row) in enumerate(rows):
        name, label = row[0].strip(), (row[1].split() or [""])[0] if len(row) > 1 else ""
        index = class_index(label, num_classes)
        if index is None and position == 0 and len(row) > 1 and name not in images:
            continue  # a header
        if index is None:
            raise RequestError(
                f"line {number} of '{file.address}' has label '{label}'; "
                f"write 'name,label' with a label 0..{num_classes - 1} or an ImageNet-1k synset"
            )
        if name in labels:
            raise RequestError(f"line {number} of '{file.address}' lists {name!r} again; list every image once")
        labels[name] = index
    return labels


def class_index(label: Any, num_classes: int) -> int | None:
    """The class that a number 0..num_classes-1, its text or an ImageNet-1k synset says; None for anything else."""
    text = str(label) if isinstance(label, int | str) else ""
    if text.isascii() and text.isdigit():
        return int(text) if int(text) < num_classes else None
    return synset_index().get(text) if num_classes == IMAGENET_CLASSES else None


def read_ground_truth(file: LabelFile, ids: str | None) -> list[int]:
    """Class index of every line: a synset, or an id 1..1000 that means what `ids` says.

    `ids`: 'sorted': rank among the sorted synsets, counted from 1; 'devkit' or None: an ILSVRC2012_ID,
    translated by meta.mat, and a RequestError without it, because every other reading would be a guess.
    """
    words = file.text.split()
    order = None
    labels = []
    for number, word in enumerate(words, 1):
        if word in synset_index():
            labels.append(synset_index()[word])
            continue
        if not (word.isascii() and word.isdigit() and 1 <= int(word) <= IMAGENET_CLASSES):
            raise RequestError(
                f"line {number} of '{file.address}' is '{word}'; write one id 1..{IMAGENET_CLASSES} or synset a line"
            )
        order = order or _id_order(file, ids)
        labels.append(order[int(word) - 1])
    return labels


def _id_order(file: LabelFile, ids: str | None) -> Sequence[int]:
    if ids == "sorted":
        return range(IMAGENET_CLASSES)
    if file.meta is None:
        raise RequestError(
            f"'{file.address}' holds ILSVRC2012 ids, whose meaning is in the devkit's {META}, and that is not there; "
            f"put {META} beside it, or say --task-option ground_truth_ids=sorted if the ids are ranks 1..1000 of the "
            "sorted synsets"
        )
    return devkit_order(file.meta, file.address)


def devkit_order(meta: bytes, address: str) -> list[int]:
    """Class index of ILSVRC2012_ID 1, 2, ... 1000, from the bytes of the devkit's meta.mat."""
    try:
        synsets = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"] == 0]
        by_id = {int(np.squeeze(row["ILSVRC2012_ID"])): str(np.squeeze(row["WNID"])) for row in leaves}
        order = [synset_index()[by_id[number]] for number in range(1, IMAGENET_CLASSES + 1)]
    # loadmat raises errors of many kinds on bytes that are no MATLAB file.
    except Exception as error:
        raise RequestError(
            f"{META} beside '{address}' is not that of ILSVRC2012 ({type(error).__name__}: {error}); "
            "take it from ILSVRC2012_devkit_t12/data"
        ) from error
    if len(set(order)) != IMAGENET_CLASSES:
        raise RequestError(
            f"{META} beside '{address}' gives two ids one synset; take it from ILSVRC2012_devkit_t12/data"
        )
    return order


def match_ground_truth(labels: Sequence[int], images: Sequence[str], address: str) -> dict[str, int]:
    """File name -> label, for the sorted file names of a flat folder.

    Names `ILSVRC2012_val_000000NN.JPEG` say their line, NN, so a file that is missing is listed and does
    not shift the others. Other names belong to the lines in sorted order, which needs as many lines as
    files.
    """
    numbers = [VAL_NAME.fullmatch(name) for name in images]
    if not any(numbers):
        if len(labels) != len(images):
            raise RequestError(
                f"'{address}' has {len(labels)} lines for {len(images)} images; they must be as many, one line each"
            )
        return dict(zip(images, labels, strict=True))
    files: dict[int, str] = {}
    for name, number in zip(images, numbers, strict=True):
        line = int(number[1]) if number else 0
        if not 1 <= line <= len(labels):
            raise RequestError(f"image '{name}' has no line in '{address}', which has {len(labels)}; remove the image")
        if line in files:
            raise RequestError(f"images '{files[line]}' and '{name}' are both line {line} of '{address}'; remove one")
        files[line] = name
    return {files.get(n, f"ILSVRC2012_val_{n:08d}.JPEG"): label for n, label in enumerate(labels, 1)}
