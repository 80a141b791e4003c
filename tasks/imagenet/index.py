"""Finds the labelled images of a classification data set in a tree of files, whatever its layout.

Layouts: class folders (`<class>/*`, at the top, under `val/`, or under one wrapping folder); one flat
folder with a label file: a CSV of `name,label`, or ILSVRC2012_validation_ground_truth.txt; images that bring
their labels (WebDataset, Parquet). An id is the image's path relative to the folder that holds the classes, or
the flat images; so it is the same in a folder, a zip and a tar. Where images bring their labels it is their name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from suite.errors import RequestError
from tasks.imagenet.attached import labels_beside, labels_in_rows
from tasks.imagenet.labels import (
    GROUND_TRUTH,
    IMAGENET_CLASSES,
    META,
    LabelFile,
    match_ground_truth,
    read_csv,
    read_ground_truth,
    synset_index,
)
from tasks.reading.images import is_image
from tasks.reading.trees.parquet import ParquetTree
from tasks.reading.trees.tree import FileTree

VAL_FOLDERS = ("val", "validation", "ILSVRC2012_img_val")
DEVKIT_FOLDERS = ("", "data", "ILSVRC2012_devkit_t12/data")


@dataclass(frozen=True)
class Options:
    """What the user may say about the labels; see `tasks.imagenet.task.ImageNet`."""

    labels: str | None = None
    ground_truth_ids: str | None = None
    num_classes: int | None = None


@dataclass
class Index:
    """The labelled images: `labels` maps id -> label, in order; the file of an id is `root`/id in the tree.

    Images that bring their labels are ordered by class, then by id, as class folders are, so that the same images with
    the same names have one order in all of these.
    """

    root: str
    labels: dict[str, int]
    num_classes: int
    notes: list[str] = field(default_factory=list)


def build_index(tree: FileTree, options: Options) -> Index:
    """Raises RequestError when the tree does not hold images that are all labelled in one of the layouts."""
    if isinstance(tree, ParquetTree):
        if options.labels:
            raise RequestError(f"labels '{options.labels}': Parquet files bring their own; leave it out")
        return _from_attached(*labels_in_rows(tree, options.num_classes))
    if not any(is_image(name) for name in tree.files):
        raise RequestError(f"data '{tree.location}' holds no image; expected val/<synset>/*.JPEG or flat images")
    if not options.labels and (attached := labels_beside(tree, options.num_classes)):
        return _from_attached(*attached)
    root = find_root(tree, labelled=bool(options.labels or _beside(tree)))
    flat = [name for name in _inside(tree.files, root) if "/" not in name and is_image(name)]
    found = find_labels(tree, root, options) if flat or options.labels else None
    if found:
        return _from_label_file(tree, root, found, options)
    if flat:
        raise RequestError(
            f"image '{tree.where(_join(root, flat[0]))}' has no label: it lies outside class folders, and there is "
            f"no {GROUND_TRUTH} or CSV of name,label beside it; add one, or name it with --task-option labels=FILE"
        )
    index = _from_folders(tree, root, options)
    ignored = [name for name in _inside(tree.files, root) if _is_label_file(name)]
    index.notes += _note(ignored, "are not used, because class folders say the labels")
    return index


def _from_attached(labels: dict[str, int], num_classes: int) -> Index:
    return Index("", dict(sorted(labels.items(), key=lambda item: (item[1], item[0]))), num_classes)


def find_root(tree: FileTree, labelled: bool) -> str:
    """The folder ('' for the top) that holds the class folders or the flat images.

    `labelled`: a label file outside the tree says that an only folder of images is not a class.
    """
    here = ""
    while True:
        folders = [name for name in _inside(tree.folders, here) if "/" not in name]
        val = next((name for name in VAL_FOLDERS if name in folders), None)
        if val is None and len(folders) == 1 and _is_wrapper(tree, here, folders[0], labelled):
            val = folders[0]
        if val is None:
            return here
        here = _join(here, val)


def _is_wrapper(tree: FileTree, here: str, folder: str, labelled: bool) -> bool:
    """Whether the only folder at `here` wraps the data set, rather than being its only class."""
    if folder in synset_index() or any(is_image(name) and "/" not in name for name in _inside(tree.files, here)):
        return False
    below = _join(here, folder)
    has_images = any(is_image(name) and "/" not in name for name in _inside(tree.files, below))
    if not has_images or labelled:
        return True
    names = [*_inside(tree.files, here), *_inside(tree.files, below)]
    return any(_is_label_file(name) for name in names)


def _is_label_file(name: str) -> bool:
    return "/" not in name and (name == GROUND_TRUTH or name.lower().endswith(".csv"))


def _beside(tree: FileTree) -> Path | None:
    """The CSV that lies beside an archive and has its name."""
    path = tree.location.absolute().parent / f"{_stem(tree.location)}.csv"
    return path if not tree.location.is_dir() and path.is_file() else None


def find_labels(tree: FileTree, root: str, options: Options) -> LabelFile | None:
    """The label file that the options name, or the only one in or above `root` or beside the data."""
    meta = next((data for place in _places(tree, root) for data in [_first(tree, place, META)] if data), None)
    if options.labels:
        path = Path(options.labels)
        if not path.is_file():
            raise RequestError(
                f"label file '{path}' does not exist; name an existing file with --task-option labels=FILE"
            )
        beside = path.parent / META
        return _label_file(str(path), path.read_bytes(), beside.read_bytes() if beside.is_file() else meta and meta[1])
    found = []
    for place in _places(tree, root):
        truth = _first(tree, place, GROUND_TRUTH)
        found += [truth] if truth else []
        if isinstance(place, str):
            names = [n for n in _inside(tree.files, place) if "/" not in n and n.lower().endswith(".csv")]
            found += [(tree.where(_join(place, name)), tree.read(_join(place, name))) for name in names]
        elif csv := _beside(tree):
            found.append((str(csv), csv.read_bytes()))
        if found:
            break
    if len(found) > 1:
        several = ", ".join(address for address, _ in found)
        raise RequestError(f"several label files: {several}; choose one with --task-option labels=FILE")
    return _label_file(*found[0], meta and meta[1]) if found else None


def _places(tree: FileTree, root: str) -> list[str | Path]:
    """Where labels may lie: the root and the folders above it in the tree (str), then the folder beside the data."""
    above = [root]
    while above[-1]:
        above.append(posixpath.dirname(above[-1]))
    return [*above, tree.location.absolute().parent]


def _first(tree: FileTree, place: str | Path, name: str) -> tuple[str, bytes] | None:
    """Address and bytes of file `name` at one place, or in the devkit's folders there."""
    for folder in DEVKIT_FOLDERS:
        if isinstance(place, Path):
            path = place / folder / name
            if path.is_file():
                return str(path), path.read_bytes()
        elif (inside := _join(place, folder, name)) in tree:
            return tree.where(inside), tree.read(inside)
    return None


def _label_file(address: str, data: bytes, meta: bytes | None) -> LabelFile:
    try:
        return LabelFile(address, data.decode("utf-8-sig"), meta)
    except UnicodeDecodeError as error:
        raise RequestError(f"label file '{address}' is not UTF-8 text ({error}); save it as UTF-8") from error


def _from_label_file(tree: FileTree, root: str, file: LabelFile, options: Options) -> Index:
    images = [name for name in _inside(tree.files, root) if is_image(name)]
    flat = [name for name in images if "/" not in name]
    notes = []
    if file.is_csv:
        num_classes = options.num_classes or IMAGENET_CLASSES
        known = frozenset(images)
        stems = {posixpath.splitext(name)[0]: name for name in images}
        listed = read_csv(file, num_classes, known)
        labels = {_resolve(name, root, known, stems): label for name, label in listed.items()}
        if len(labels) != len(listed):
            raise RequestError(f"'{file.address}' lists an image under two names; list every image once")
    else:
        num_classes = IMAGENET_CLASSES
        if options.num_classes not in (None, num_classes):
            raise RequestError(f"'{file.address}' labels {num_classes} classes, not num_classes={options.num_classes}")
        labels = match_ground_truth(read_ground_truth(file, options.ground_truth_ids), flat, file.address)
        if options.ground_truth_ids == "sorted":
            notes.append(f"ids in {file.address} are read as ranks of the sorted synsets (ground_truth_ids=sorted)")
    if not labels:
        raise RequestError(f"label file '{file.address}' lists no image; write one line for every image")
    unused = [name for name in images if name not in labels]
    notes += _note(unused, f"have no line in {file.address} and are not used")
    return Index(root, dict(sorted(labels.items())), num_classes, notes)


def _resolve(name: str, root: str, images: frozenset[str], stems: dict[str, str]) -> str:
    """The id of a name in a CSV, which may lead through the image folder and may leave out the suffix."""
    name = posixpath.normpath(name.replace("\\", "/"))
    for candidate in (name, name.removeprefix(f"{posixpath.basename(root)}/")):
        if candidate in images:
            return candidate
        if candidate in stems:
            return stems[candidate]
    return name  # listed and not there: a sample that cannot be read


def _from_folders(tree: FileTree, root: str, options: Options) -> Index:
    folders = [name for name in _inside(tree.folders, root) if "/" not in name]
    inside = [name for name in _inside(tree.files, root) if "/" in name]
    images = [name for name in inside if is_image(name)]
    filled = {name.split("/")[0] for name in images}
    empty = [name for name in folders if name not in filled]
    if empty:
        raise RequestError(
            f"class folder '{tree.where(_join(root, empty[0]))}' holds no image ({len(empty)} such of {len(folders)}); "
            "put its images there or remove the folder"
        )
    indices, num_classes = _folder_labels(folders, options.num_classes, tree)
    labels = {name: indices[name.split("/")[0]] for name in sorted(images)}
    notes = _note([name for name in inside if not is_image(name)], "are no images and are left out")
    return Index(root, labels, num_classes, notes)


def _folder_labels(folders: list[str], num_classes: int | None, tree: FileTree) -> tuple[dict[str, int], int]:
    """Class folder -> label, and the number of classes: ImageNet's order for its synsets, else ranks of the names."""
    known = synset_index()
    strangers = [name for name in folders if name not in known]
    if num_classes in (None, IMAGENET_CLASSES) and not strangers:
        return {name: known[name] for name in folders}, IMAGENET_CLASSES
    if num_classes is None and len(strangers) < len(folders):
        raise RequestError(
            f"folder '{strangers[0]}' in '{tree.location}' is no ImageNet-1k synset, but "
            f"{len(folders) - len(strangers)} others are; remove it, or label all folders by the rank of their names "
            f"with --task-option num_classes={len(folders)}"
        )
    if num_classes is not None and num_classes != len(folders):
        raise RequestError(
            f"num_classes is {num_classes}, but '{tree.location}' has {len(folders)} class folders; make them equal"
        )
    if all(name.isdigit() for name in folders) and sorted(folders) != sorted(folders, key=int):
        raise RequestError(
            f"class folders in '{tree.location}' are numbers of different lengths, so '10' sorts before '2' and it is "
            "unclear which class is meant; pad them with zeros, or list the images in a CSV"
        )
    return {name: rank for rank, name in enumerate(sorted(folders))}, len(folders)


def _note(names: list[str], what: str) -> list[str]:
    return [f"{len(names)} files {what}, first {names[0]}"] if names else []


def _inside(names: Iterable[str], folder: str) -> list[str]:
    """The names below `folder`, relative to it."""
    prefix = f"{folder}/" if folder else ""
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".zip", ".gz", ".bz2", ".xz", ".tgz", ".tar"):
        name = name.removesuffix(suffix)
    return name
