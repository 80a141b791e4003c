"""Labels that every image brings with it: in a file beside it, as in a WebDataset, or in its row of a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa

from suite.errors import RequestError
from tasks.imagenet.labels import IMAGENET_CLASSES, class_index, say_labels, synset_index
from tasks.reading.images import is_image
from tasks.reading.trees.joined import key_of
from tasks.reading.trees.parquet import ParquetTree
from tasks.reading.trees.tree import FileTree

CLS, JSON = ".cls", ".json"
FIELDS = ("label", "cls", "class", "class_id", "target")  # of a JSON file: the first that is a class
COLUMNS = ("label", "labels", "fine_label")
METADATA = b"huggingface"
NO_CLASS = "no class 0..{}; name data that are labelled, or the number of classes with --task-option num_classes=N"


def labels_beside(tree: FileTree, num_classes: int | None) -> tuple[dict[str, int], int] | None:
    """Image -> class, and the number of classes, where images have a `KEY.cls`, or a `KEY.json` that says a class.

    None where they have none. RequestError where some have one and others not, or two images have one key.
    """
    if not any(name.endswith((CLS, JSON)) for name in tree.files):
        return None
    classes = num_classes or IMAGENET_CLASSES
    images = [name for name in tree.files if is_image(name)]
    files = {image: file for image in images if (file := _label_file(tree, image))}
    said = any(file.endswith(CLS) for file in files.values())
    if not said and not any(_class_in(tree, file, classes) is not None for file in list(files.values())[:1]):
        return None
    labels: dict[str, int] = {}
    keys: dict[str, str] = {}
    for image in images:
        if image not in files:
            raise RequestError(
                f"image '{tree.where(image)}' has no label: there is no '{key_of(image)}{CLS}' or {JSON} beside it, as "
                "others have; add one, or remove the image"
            )
        other = keys.setdefault(key_of(image), image)
        if other != image:
            raise RequestError(
                f"images '{tree.where(other)}' and '{image}' have one key, and one label; keep one of them"
            )
        label = _class_in(tree, files[image], classes)
        if label is None:
            raise RequestError(f"label file '{tree.where(files[image])}' says {NO_CLASS.format(classes - 1)}")
        labels[image] = label
    return labels, classes


def _label_file(tree: FileTree, image: str) -> str | None:
    return next((name for ending in (CLS, JSON) if (name := key_of(image) + ending) in tree), None)


def _class_in(tree: FileTree, file: str, num_classes: int) -> int | None:
    """The class that a file says. RequestError for one that is no text, or no JSON."""
    try:
        text = tree.read(file).decode()
        found = json.loads(text) if file.endswith(JSON) else {CLS: text.strip()}
    except ValueError as error:
        raise RequestError(f"label file '{tree.where(file)}' cannot be read ({error}); write it again") from error
    values = (found.get(name) for name in (CLS, *FIELDS)) if isinstance(found, dict) else ()
    return next((label for value in values if (label := class_index(value, num_classes)) is not None), None)


def labels_in_rows(
    tree: ParquetTree, num_classes: int | None
) -> tuple[dict[str, int], int, frozenset[int] | None, str]:
    """Image -> class, the number of classes, those of ImageNet-1k's that are named, where not all are, and how labels
    are to be taken, where that is in doubt; from the column of labels and what the schema says of it.

    Names of classes that are ImageNet-1k's synsets say their classes. RequestError for rows without a class.
    """
    column = next((name for name in COLUMNS if name in tree.schema.names), None)
    kind = tree.schema.field(column).type if column else None
    if column is None or not pa.types.is_integer(kind):
        has = f"'{column}' holds {kind}" if column else f"it has {', '.join(tree.schema.names)}"
        raise RequestError(f"data '{tree.location}' has no column 'label' of whole numbers ({has}); write one")
    names = _class_names(tree.schema.metadata or {}, column)
    synsets = bool(names) and synset_index().keys() >= set(names) and num_classes in (None, IMAGENET_CLASSES)
    if names and not synsets and num_classes not in (None, len(names)):
        raise RequestError(
            f"num_classes is {num_classes}, but '{tree.location}' names {len(names)} classes; make them equal"
        )
    classes = len(names) or num_classes or IMAGENET_CLASSES
    if not tree.rows:
        raise RequestError(f"data '{tree.location}' holds no row; name data with images")
    labels = {}
    for row, label in zip(tree.rows, tree.read_column(column), strict=True):
        if label is None or not 0 <= label < classes:
            raise RequestError(f"'{tree.where(row)}' has label {label}, which is {NO_CLASS.format(classes - 1)}")
        labels[row] = synset_index()[names[label]] if synsets else label
    named = frozenset(synset_index()[name] for name in names) if synsets else None
    own = dict(zip(names, range(classes))) if names and not synsets and classes != IMAGENET_CLASSES else {}
    said = say_labels("those of the data's own list of classes", own) if own else ""
    return labels, IMAGENET_CLASSES if synsets else classes, named, said


def _class_names(metadata: Mapping[bytes, bytes], column: str) -> Sequence[str]:
    """By label, as Hugging Face's `datasets` writes them; none where it did not."""
    try:
        features = json.loads(metadata.get(METADATA, b"{}")).get("info", {}).get("features", {})
        names: Sequence[str] = features.get(column, {}).get("names") or ()
        return names
    except (ValueError, AttributeError) as error:
        raise RequestError(
            f"the schema's metadata '{METADATA.decode()}' cannot be read ({error}); write it again"
        ) from error
