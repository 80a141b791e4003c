"""Where in a tree the class folders or the flat images of a classification data set lie."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from suite.errors import RequestError
from tasks.imagenet.corrupted import is_corrupted
from tasks.imagenet.labels import GROUND_TRUTH, synset_index
from tasks.reading.images import is_image
from tasks.reading.trees.tree import FileTree

VAL_FOLDERS = ("val", "validation", "ILSVRC2012_img_val")
SPLITS = (*VAL_FOLDERS, "train", "test", "training", "testing")
BESIDE = (GROUND_TRUTH, "val.txt", "val_annotations.txt", "imagenet_2012_validation_synset_labels.txt", "real.json")
"""Names of files that say labels of images."""


def inside(names: Iterable[str], folder: str) -> list[str]:
    """The names below `folder`, relative to it."""
    prefix = f"{folder}/" if folder else ""
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def upwards(folder: str) -> Iterator[str]:
    """A folder, and those above it to the top."""
    yield folder
    while folder:
        folder = posixpath.dirname(folder)
        yield folder


def is_label_file(name: str) -> bool:
    """Whether a file at the top of a folder is one that says labels of images, by its name."""
    return "/" not in name and (name in BESIDE or name.lower().endswith(".csv"))


def labels_beside_archive(tree: FileTree) -> Path | None:
    """The CSV that lies beside an archive and has its name."""
    path = tree.location.absolute().parent / f"{_stem(tree.location)}.csv"
    return path if not tree.location.is_dir() and path.is_file() else None


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".zip", ".gz", ".bz2", ".xz", ".tgz", ".tar"):
        name = name.removesuffix(suffix)
    return name


def find_root(tree: FileTree) -> str:
    """The folder ('' for the top) that holds the class folders or the flat images."""
    here, images = "", [name for name in tree.files if is_image(name)]
    while True:
        below = inside(images, here)
        folders = list(dict.fromkeys(name.split("/")[0] for name in below if "/" in name))
        val = next((name for name in VAL_FOLDERS if name in folders), None) or _only_val(folders)
        if val is None and len(folders) == 1 and _is_wrapper(folders[0], below):
            val = folders[0]
        if val is None:
            return here
        here = join(here, val)


def _only_val(folders: list[str]) -> str | None:
    """`val.X` beside `train.X1` and others."""
    vals = [name for name in folders if name.lower().startswith("val")]
    splits = all(name.lower().startswith(("val", "train", "test")) for name in folders)
    return vals[0] if len(folders) > 1 and splits and len(vals) == 1 else None


def _is_wrapper(folder: str, images: Sequence[str]) -> bool:
    """Whether the only folder among images wraps the data set, rather than being its only class, which is known by its
    name: of a class without one there is nothing to tell."""
    return folder not in synset_index() and not folder.isdigit() and all("/" in name for name in images)


def check_level(tree: FileTree, root: str) -> None:
    """RequestError where the folders at `root` are no classes, but hold the class folders."""
    images = [name for name in inside(tree.files, root) if is_image(name) and "/" in name]
    folders = list(dict.fromkeys(name.split("/")[0] for name in images))
    at = f"'{tree.where(root)}'" if root else f"'{tree.location}'"
    if set(folders) & synset_index().keys():
        return
    parents = synset_parents(images)
    if parents:
        other = ""
        if is_corrupted(images, tree.location.absolute().name):
            other = ", or have every corruption and severity read, for mCE, with --task-option corruptions=all"
        raise RequestError(
            f"the folders in {at} ({_some(folders)}) are no classes: class folders, named by synsets, lie in "
            f"{_some(parents)}; name one of these with --data{other}"
        )
    if folders and all(name.lower() in SPLITS for name in folders):
        raise RequestError(f"the folders in {at} ({_some(folders)}) are splits, no classes; name one with --data")
    within: dict[str, set[str]] = {folder: set() for folder in folders}
    for name in images:
        folder, *between, _ = name.split("/")
        within[folder].add(between[0] if between else "")
    first, *others = within.values()
    if others and all(names == first for names in others) and len(first) > 1 and "" not in first:
        raise RequestError(
            f"all folders in {at} ({_some(folders)}) hold the same folders ({_some(sorted(first))}), so that it is "
            "open which of both are the classes; name one of the folders with --data, or take one level away"
        )


def synset_parents(images: Iterable[str]) -> list[str]:
    """Folders in which folders lie that are named by ImageNet-1k's synsets, below the top."""
    found: dict[str, None] = {}
    for name in images:
        parts = name.split("/")[:-1]
        place = next((i for i, part in enumerate(parts) if part in synset_index()), 0)
        if place:
            found["/".join(parts[:place])] = None
    return list(found)


def _some(names: list[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:3])
    return f"{listed}, … ({len(names)} such)" if len(names) > 3 else listed
