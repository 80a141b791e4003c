"""Labels of images that a file says, by their names or by their order.

ImageNet-1k class indices 0..999 are the ranks of the sorted synsets, the order that timm's models were
trained with. The devkit counts differently: its ground truth holds ILSVRC2012_IDs 1..1000, whose order is
its own and is written in `meta.mat` alone.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import scipy.io
from timm.data import ImageNetInfo

from suite.errors import RequestError
from tasks.imagenet.tables import Row, Table, file_name
from tasks.reading.trees.tree import composed, say_forms

IMAGENET_CLASSES = 1000
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d+)(?:_n\d{8})?(?:\.\w+)?")
SYNSET = re.compile(r"n\d{8}")
IDS = "--task-option ground_truth_ids=sorted"
INDEX = "index"  # ids are class indices, whatever they look like
MANY = 10  # classes from 1 on, without a gap and without 0: that is no accident

Label = int | tuple[int, ...]
"""A class, or all that are right."""


@cache
def synset_index() -> dict[str, int]:
    """ImageNet-1k synset -> class index 0..999, from timm's own list."""
    return {synset: index for index, synset in enumerate(ImageNetInfo().label_names())}


def first_names() -> list[str]:
    """The first of every class' names, by its index."""
    info = ImageNetInfo()
    return [info.index_to_description(i).split(",")[0] for i in range(IMAGENET_CLASSES)]


def say_labels(how: str, labels: Mapping[str, Label]) -> str:
    """How labels were found, with the first three."""
    first = [f"'{name}' is class {_said(label)}" for name, label in list(labels.items())[:3]]
    return f"Labels: {how}: {', '.join(first)}{', …' if len(labels) > 3 else ''}"


def _said(label: Label) -> str:
    return " or ".join(map(str, label)) if isinstance(label, tuple) else str(label)


@dataclass
class Labels:
    """Image -> label, as a table says it; also of images that are not there.

    classless: images of which no class is right. notes: what was decided on the way.
    """

    address: str
    by_image: dict[str, Label]
    num_classes: int
    classless: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the file alone, which is the same wherever the data lie."""
        return file_name(self.address)

    @property
    def several(self) -> bool:
        """Whether more than one class can be right."""
        return any(isinstance(label, tuple) for label in self.by_image.values())


class Images:
    """The images of a data set, by every name that a file may give them: with or without the folders that lead to
    them and their suffix, and those of ImageNet's validation by their number."""

    def __init__(self, images: Sequence[str], leading: Iterable[str] = ()) -> None:
        self.names = images
        self.known = frozenset(images)
        self._leading = frozenset(leading)

    @cached_property
    def _short(self) -> dict[str, str]:
        short = {posixpath.splitext(name)[0]: name for name in self.names}
        for name in self.names:
            if (same := composed(name)) != name:
                short |= {same: name, posixpath.splitext(same)[0]: name}
            if match := VAL_NAME.fullmatch(posixpath.basename(name)):
                short[f"ILSVRC2012_val_{int(match[1]):08d}"] = name
        return short

    def find(self, name: str) -> str | None:
        """The image that a name means; None for one that is not there."""
        name = posixpath.normpath(name.replace("\\", "/")).lstrip("/")
        name = name if name in self.known else composed(name)
        if match := VAL_NAME.fullmatch(posixpath.basename(name)):
            return self._short.get(f"ILSVRC2012_val_{int(match[1]):08d}")
        while True:
            if name in self.known:
                return name
            if name in self._short:
                return self._short[name]
            first, _, rest = name.partition("/")
            if first not in self._leading or not rest:
                return None
            name = rest


def read_labels(table: Table, images: Images, num_classes: int | None, ids: str | None) -> Labels:
    """What a table says of images. RequestError naming the line that is wrong.

    num_classes: None for ImageNet's. ids: what numbers from 1 mean, see `read_ground_truth`.
    """
    if table.rows and not table.named:
        if num_classes not in (None, IMAGENET_CLASSES):
            raise RequestError(f"'{table.address}' labels {IMAGENET_CLASSES} classes, not num_classes={num_classes}")
        return _by_place(table, images, ids)
    classes = num_classes or IMAGENET_CLASSES
    index = _ranks(table, images, classes) or (lambda label: _index(table, label, classes, ids))
    found: dict[str, tuple[int, ...]] = {}
    names: set[str] = set()
    stems: list[tuple[str, str]] = []
    for row in table.rows:
        labels = [index(label) for label in row.said]
        if (not labels or None in labels) and row is table.rows[0] and row.said and not images.find(row.name):
            continue  # a header
        if None in labels or not (labels or table.is_json):
            label = row.said[labels.index(None)] if labels else ""
            raise RequestError(
                f"line {row.number} of '{table.address}' has label '{label}'; write 'name,label' with a label "
                f"0..{classes - 1} or an ImageNet-1k synset, or say {IDS} if they count from 1"
            )
        if row.name in names:
            raise RequestError(
                f"line {row.number} of '{table.address}' lists {row.name!r} again; list every image once"
            )
        names.add(row.name)
        name = images.find(row.name) or row.name  # listed and not there: a sample that cannot be read
        if name in found:
            raise RequestError(f"'{table.address}' lists an image under two names; list every image once")
        found[name] = tuple(label for label in labels if label is not None)
        stems.append((posixpath.splitext(row.name)[0], posixpath.splitext(name)[0]))
    read = _labels(table.address, found, classes)
    read.notes += [*say_forms(stems), *_say_where_they_begin(table, ids)]
    return read


def _say_where_they_begin(table: Table, ids: str | None) -> list[str]:
    """That numbers may count from 1; RequestError where they most probably do."""
    numbers = {int(label) for row in table.rows for label in row.said if label.isascii() and label.isdigit()}
    if ids or not numbers or min(numbers) != 1:
        return []
    if len(numbers) == max(numbers) >= MANY:
        raise RequestError(
            f"labels of '{table.address}' are 1..{max(numbers)} without 0; say {IDS} if they count from 1, or "
            f"--task-option ground_truth_ids={INDEX} if they are class indices"
        )
    return [f"no label of {table.address} is 0, and 1 is one; if they count from 1, say {IDS}"]


def _index(table: Table, label: str, num_classes: int, ids: str | None) -> int | None:
    if ids not in (None, INDEX) and label.isascii() and label.isdigit():
        return _from_one(table, label, ids) if 1 <= int(label) <= num_classes else None
    return class_index(label, num_classes)


def _from_one(table: Table, label: str, ids: str | None) -> int:
    return _id_order(table, ids)[int(label) - 1]


def _ranks(table: Table, images: Images, num_classes: int) -> Any:
    """Synsets as ranks, for a model of just those; None where they are ImageNet's, or the labels are none."""
    said = {label for row in table.rows if images.find(row.name) for label in row.said}
    listed = sorted({label for row in table.rows for label in row.said if SYNSET.fullmatch(label)})
    if num_classes == IMAGENET_CLASSES or not said or not said <= set(listed):
        return None
    if len(listed) != num_classes:
        raise RequestError(f"'{table.address}' names {len(listed)} classes, not num_classes={num_classes}; say as many")
    return {label: rank for rank, label in enumerate(listed)}.get


def _labels(address: str, found: dict[str, tuple[int, ...]], num_classes: int) -> Labels:
    """One class an image, or several; an image of which no class is right is no sample."""
    classless = tuple(name for name, labels in found.items() if not labels)
    notes = [f"{len(classless)} images have no right class in {address} and are no samples"] if classless else []
    several = any(len(labels) > 1 for labels in found.values())
    kept = {name: labels if several else labels[0] for name, labels in found.items() if labels}
    return Labels(address, kept, num_classes, classless, notes)


def class_index(label: Any, num_classes: int) -> int | None:
    """The class that a number 0..num_classes-1, its text or an ImageNet-1k synset says; None for anything else."""
    text = str(label) if isinstance(label, int | str) else ""
    if text.isascii() and text.isdigit():
        return int(text) if int(text) < num_classes else None
    return synset_index().get(text) if num_classes == IMAGENET_CLASSES else None


def _by_place(table: Table, images: Images, ids: str | None) -> Labels:
    """Labels of sorted images, one a row: of a JSON class indices, of a text see `read_ground_truth`."""
    labels: list[tuple[int, ...]]
    if table.is_json:
        labels = [_classes(table, row) for row in table.rows]
    else:
        labels = [(label,) for label in read_ground_truth(table, ids)]
    found = match_ground_truth(labels, images.names, table.address)
    made = _labels(table.address, found, IMAGENET_CLASSES)
    if ids == "sorted" and not table.is_json:
        made.notes.append(f"ids in {table.address} are read as ranks of the sorted synsets (ground_truth_ids=sorted)")
    return made


def _classes(table: Table, row: Row) -> tuple[int, ...]:
    labels = tuple(label for text in row.said if (label := class_index(text, IMAGENET_CLASSES)) is not None)
    if len(labels) != len(row.said):
        raise RequestError(
            f"entry {row.number} of '{table.address}' is {list(row.said)}; write class indices "
            f"0..{IMAGENET_CLASSES - 1}"
        )
    return labels


def read_ground_truth(table: Table, ids: str | None) -> list[int]:
    """Class index of every line: a synset, or an id 1..1000 that means what `ids` says.

    `ids`: 'sorted': rank among the sorted synsets, counted from 1; 'devkit' or None: an ILSVRC2012_ID,
    translated by meta.mat, and a RequestError without it, because every other reading would be a guess; 'index': a
    class index, as in a file that is not the devkit's and has a 0.
    """
    from_zero = (table.name != GROUND_TRUTH and any(row.said == ("0",) for row in table.rows)) or ids == INDEX
    labels = []
    for row in table.rows:
        word = ";".join(row.said)
        if from_zero and (label := class_index(word, IMAGENET_CLASSES)) is not None:
            labels.append(label)
        elif word in synset_index():
            labels.append(synset_index()[word])
        elif word.isascii() and word.isdigit() and 1 <= int(word) <= IMAGENET_CLASSES:
            labels.append(_from_one(table, word, ids))
        else:
            raise RequestError(
                f"line {row.number} of '{table.address}' is '{word}'; write one id 1..{IMAGENET_CLASSES} or synset a "
                "line"
            )
    return labels


def _id_order(table: Table, ids: str | None) -> Sequence[int]:
    if ids == "sorted":
        return range(IMAGENET_CLASSES)
    if table.meta is None:
        raise RequestError(
            f"'{table.address}' holds ILSVRC2012 ids, whose meaning is in the devkit's {META}, and that is not there; "
            f"put {META} beside it, or say {IDS} if the ids are ranks 1..1000 of the sorted synsets, or ={INDEX} "
            "if they are class indices"
        )
    return devkit_order(table.meta, table.address)


@cache
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


def match_ground_truth(
    labels: Sequence[tuple[int, ...]], images: Sequence[str], address: str
) -> dict[str, tuple[int, ...]]:
    """Image -> labels, for sorted images.

    Names `ILSVRC2012_val_000000NN.JPEG` say their line, NN, so a file that is missing is listed and does
    not shift the others. Other names belong to the lines in sorted order, which needs as many lines as
    files.
    """
    numbers = [VAL_NAME.fullmatch(posixpath.basename(name)) for name in images]
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


def labels_in_names(images: Iterable[str]) -> dict[str, Label]:
    """Image -> class, where every image's name ends or begins with its synset, as Hugging Face's files and those of
    ImageNet's training do; empty where one does not."""
    found: dict[str, Label] = {}
    for image in images:
        parts = posixpath.splitext(posixpath.basename(image))[0].split("_")
        synset = next((part for part in (parts[-1], parts[0]) if part in synset_index()), None)
        if synset is None:
            return {}
        found[image] = synset_index()[synset]
    return found
