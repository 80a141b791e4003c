"""The files of labels that lie with a data set: in its tree, above it, and beside its folder or archive."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from suite.errors import RequestError
from tasks.imagenet.labels import META, Images, Labels, read_labels
from tasks.imagenet.layout import inside, join, labels_beside_archive
from tasks.imagenet.tables import SUFFIXES, Table, read_table
from tasks.reading.images import is_image
from tasks.reading.trees.joined import key_of
from tasks.reading.trees.tree import FileTree

FOLDERS = ("", "data", "meta", "labels", "annotations", "ImageSets/CLS-LOC", "ILSVRC2012_devkit_t12/data")
"""Where label files lie, below the images' folder or one above it."""
OUTSIDE = (
    "ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv", "val.txt", "val_annotations.txt", "real.json",
    "imagenet_2012_validation_synset_labels.txt", "class_to_idx.json", "classes.txt", "imagenet_class_index.json",
)  # fmt: skip
"""Names that are looked for outside the tree, where other files may lie as well."""
ABOVE = 4  # folders above the data, as LOC_val_solution.csv is above ILSVRC/Data/CLS-LOC/val
BY_PLACE = re.compile(r"ground_?truth|synset_labels|val(idation)?_?labels|real", re.IGNORECASE)
"""Names of files that say the labels of sorted images, a line each."""


class LabelFiles:
    """Those of a tree. named: the one that the user names, and that then is the only one."""

    def __init__(self, tree: FileTree, named: str | None) -> None:
        self.tree = tree
        self.named = Path(named) if named else None
        if self.named and not self.named.is_file():
            raise RequestError(
                f"label file '{self.named}' does not exist; name an existing file with --task-option labels=FILE"
            )

    @property
    def outside(self) -> bool:
        """Whether a label file outside the tree is certain to be of these images."""
        return bool(self.named or labels_beside_archive(self.tree))

    def of_images(
        self, images: Images, root: str, num_classes: int | None, ids: str | None, flat: bool
    ) -> list[Labels]:
        """What the files at the nearest place that has any say of the images. RequestError for a line that is wrong.

        flat: nothing else says the labels. Then a file may go by the images' order, and where none speaks of an image,
        the one that is named, or a CSV, is taken for what should, and it is said what is wrong with it.
        """
        spare: list[Table] = []
        for tables in [[self._named_table(root)]] if self.named else self._places(root):
            found = [table for table in tables if _speaks_of(table, images, flat or self.named is not None)]
            if found:
                return [read_labels(table, images, num_classes, ids) for table in found]
            spare = spare or [table for table in tables if self.named or table.address.lower().endswith(".csv")]
        return [read_labels(table, images, num_classes, ids) for table in spare] if flat else []

    def of_folders(self, root: str) -> list[Table]:
        """The files that may say the classes of class folders: in the tree, and beside it."""
        if self.named:
            return [self._named_table(root)]
        return [table for tables in self._places(root, above=1) for table in tables]

    @cached_property
    def _stems(self) -> frozenset[str]:
        return frozenset(key_of(name) for name in self.tree.files if is_image(name))

    @cached_property
    def _above(self) -> list[Path]:
        return list(self.tree.location.absolute().parents)[:ABOVE]

    def _named_table(self, root: str) -> Table:
        assert self.named is not None
        beside = self.named.parent / META
        meta = beside.read_bytes() if beside.is_file() else self._meta(root)
        return read_table(str(self.named), self.named.read_bytes(), meta)

    def _places(self, root: str, above: int = ABOVE) -> Iterator[list[Table]]:
        """The tables at the root, in each folder above it, and in those outside the tree, place by place."""
        meta = self._meta(root)
        for place in _upwards(root):
            names = [join(place, folder, name) for folder in FOLDERS for name in self._files(join(place, folder))]
            yield list(self._read(((self.tree.where(name), self.tree.read(name)) for name in names), meta))
        csv = labels_beside_archive(self.tree)
        if csv:
            yield [read_table(str(csv), csv.read_bytes(), meta)]
        for parent in self._above[:above]:
            paths = [parent / folder / name for folder in FOLDERS for name in OUTSIDE]
            yield list(self._read(((str(path), path.read_bytes()) for path in paths if path.is_file()), meta))

    def _files(self, folder: str) -> list[str]:
        """Those that could say labels; what bears an image's name is about that image alone."""
        names = [n for n in inside(self.tree.files, folder) if "/" not in n and n.lower().endswith(SUFFIXES)]
        return [name for name in names if key_of(join(folder, name)) not in self._stems]

    def _read(self, files: Iterator[tuple[str, bytes]], meta: bytes | None) -> Iterator[Table]:
        """What can be read of them; a CSV, and what has a name of a label file, must be readable."""
        for address, data in files:
            name = posixpath.basename(address)
            if name in OUTSIDE or name.lower().endswith(".csv"):
                yield read_table(address, data, meta)
            else:
                with suppress(RequestError):  # any text may lie there
                    yield read_table(address, data, meta)

    def _meta(self, root: str) -> bytes | None:
        """The devkit's meta.mat, at the nearest place that has one."""
        for place in _upwards(root):
            for folder in FOLDERS:
                if (name := join(place, folder, META)) in self.tree:
                    return self.tree.read(name)
        paths = (above / folder / META for above in self._above for folder in FOLDERS)
        return next((path.read_bytes() for path in paths if path.is_file()), None)


def _upwards(root: str) -> Iterator[str]:
    yield root
    while root:
        root = posixpath.dirname(root)
        yield root


def _speaks_of(table: Table, images: Images, by_place: bool) -> bool:
    """Whether a file says labels of images: by their names, or by its own name in their order."""
    if not table.named:
        return by_place and bool(BY_PLACE.search(table.name)) and bool(table.rows)
    if all(row.said == (str(row.number),) and not is_image(row.name) for row in table.rows):
        return False  # running numbers, as ImageSets/CLS-LOC/val.txt has them
    return any(images.find(row.name) for row in table.rows)
