"""The files of labels that lie with a data set: in its tree, above it, and beside its folder or archive."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import cached_property
from pathlib import Path

from suite.errors import RequestError
from tasks.imagenet.labels import META, Images, Labels, read_labels
from tasks.imagenet.layout import inside, join, labels_beside_archive, upwards
from tasks.imagenet.tables import SUFFIXES, Table, file_name, read_table, renamed
from tasks.reading.images import is_image
from tasks.reading.trees.joined import key_of
from tasks.reading.trees.tar_file import TarTree
from tasks.reading.trees.tree import FileTree

FOLDERS = ("", "data", "meta", "labels", "annotations", "ImageSets/CLS-LOC", "ILSVRC2012_devkit_t12/data")
"""Where label files lie, below the images' folder or one above it."""
OUTSIDE = (
    "ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv", "val.txt", "val_annotations.txt", "real.json",
    "imagenet_2012_validation_synset_labels.txt", "class_to_idx.json", "classes.txt", "imagenet_class_index.json",
)  # fmt: skip
"""Names that are looked for outside the tree, where other files may lie as well."""
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"  # as it is downloaded, beside the archives of images
OF_FOLDERS = "folder_to_objectnet_label.json"  # ObjectNet's, by which the names in its other files are those of folders
ABOVE = 4  # folders above the data, as LOC_val_solution.csv is above ILSVRC/Data/CLS-LOC/val
BY_PLACE = re.compile(r"ground_?truth|synset_labels|val(idation)?_?labels|(^|[\W_])real([\W_]|$)", re.IGNORECASE)
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

    def of_images(
        self, images: Images, root: str, num_classes: int | None, ids: str | None, flat: bool
    ) -> list[Labels]:
        """What the files at the nearest place that has any say of the images. RequestError for a line that is wrong.

        flat: nothing else says the labels. Then a file may go by the images' order, and where none speaks of an image,
        the one that is named, or a CSV, is taken for what should, and it is said what is wrong with it.
        """
        spare: list[Table] = []
        for tables in [[self._named_table(root)]] if self.named else self._places(root, strict=flat):
            found = [table for table in tables if _speaks_of(table, images, flat or self.named is not None)]
            if found:
                return [read_labels(table, images, num_classes, ids) for table in found]
            spare = spare or [table for table in tables if self.named or table.address.lower().endswith(".csv")]
        return [read_labels(table, images, num_classes, ids) for table in spare] if flat else []

    def of_folders(self, root: str) -> list[Table]:
        """The files that may say the classes of class folders: in the tree, and beside it."""
        if self.named:
            table, folders = self._named_table(root), self.named.with_name(OF_FOLDERS)
            if folders.is_file():
                table = renamed(table, read_table(str(folders), folders.read_bytes()))
            return [table]
        return [table for tables in self._places(root, above=1, strict=False) for table in tables]

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

    def _places(self, root: str, strict: bool, above: int = ABOVE) -> Iterator[list[Table]]:
        """The tables at the root, in each folder above it, and in those outside the tree, place by place.

        strict: a CSV, and what has a name of a label file, must be readable; any other text may lie there.
        """
        meta = self._meta(root)
        for place in upwards(root):
            names = [join(place, folder, name) for folder in FOLDERS for name in self._files(join(place, folder))]
            files = ((self.tree.where(name), self.tree.read(name)) for name in names)
            yield list(_read(files, meta, strict))
        csv = labels_beside_archive(self.tree)
        if csv:
            yield [read_table(str(csv), csv.read_bytes(), meta)]
        for parent in self._above[:above]:
            yield list(_read(_outside(parent, OUTSIDE), meta, strict))

    def _files(self, folder: str) -> list[str]:
        """Those that could say labels; what bears an image's name is about that image alone."""
        names = [n for n in inside(self.tree.files, folder) if "/" not in n and n.lower().endswith(SUFFIXES)]
        return [name for name in names if key_of(join(folder, name)) not in self._stems]

    def _meta(self, root: str) -> bytes | None:
        """The devkit's meta.mat, at the nearest place that has one."""
        for place in upwards(root):
            for folder in FOLDERS:
                if (name := join(place, folder, META)) in self.tree:
                    return self.tree.read(name)
        return next((data for parent in self._above for _, data in _outside(parent, (META,))), None)


def _outside(parent: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Addresses and bytes of the files of these names in a folder outside the tree, and in the devkit's archive."""
    for path in (parent / folder / name for folder in FOLDERS for name in names):
        if path.is_file():
            yield str(path), path.read_bytes()
    if (parent / DEVKIT).is_file():
        devkit = TarTree(parent / DEVKIT)
        for name in devkit.files:
            if posixpath.basename(name) in names:
                yield devkit.where(name), devkit.read(name)


def _read(files: Iterator[tuple[str, bytes]], meta: bytes | None, strict: bool) -> Iterator[Table]:
    for address, data in files:
        must = strict and (file_name(address) in OUTSIDE or address.lower().endswith(".csv"))
        with nullcontext() if must else suppress(RequestError):
            yield read_table(address, data, meta)


def _speaks_of(table: Table, images: Images, by_place: bool) -> bool:
    """Whether a file says labels of images: by their names, or by its own name in their order."""
    if not table.named:
        return by_place and bool(BY_PLACE.search(table.name)) and bool(table.rows)
    if all(row.said == (str(row.number),) and not is_image(row.name) for row in table.rows):
        return False  # running numbers, as ImageSets/CLS-LOC/val.txt has them
    return any(images.find(row.name) for row in table.rows)
