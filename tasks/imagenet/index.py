"""Finds the labelled images of a classification data set in a tree of files, whatever its layout.

Layouts: class folders (`<class>/*`, at the top, under `val/`, or under one wrapping folder); one flat
folder with a label file (see `label_files`), or with the synset in every name; images that bring
their labels (WebDataset, Parquet). An id is the image's path relative to the folder that holds the classes, or
the flat images; so it is the same in a folder, a zip and a tar. Where images bring their labels it is their name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suite.errors import RequestError
from tasks.imagenet.attached import labels_beside, labels_in_rows
from tasks.imagenet.corrupted import choose_corruptions, corruption_in, say_what_mce_is_over
from tasks.imagenet.folders import order_folders
from tasks.imagenet.label_files import LabelFiles
from tasks.imagenet.labels import (
    GROUND_TRUTH,
    IMAGENET_CLASSES,
    Images,
    Label,
    Labels,
    labels_in_names,
    say_labels,
    synset_index,
)
from tasks.imagenet.layout import VAL_FOLDERS, check_level, find_root, inside, is_label_file, join, upwards
from tasks.reading.images import is_image
from tasks.reading.trees.parquet import ParquetTree
from tasks.reading.trees.tree import FileTree

PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".rar", ".7z")
ANNOTATIONS = "val_annotations.txt"  # of Tiny ImageNet: they list the classes of the data set


@dataclass(frozen=True)
class Options:
    """What the user may say about the labels; see `tasks.imagenet.task.ImageNet`."""

    labels: str | None = None
    ground_truth_ids: str | None = None
    num_classes: int | None = None
    corruptions: str | Sequence[str] | None = None


@dataclass
class Index:
    """The labelled images: `labels` maps id -> label, in order; the file of an id is `root`/id in the tree.

    Images that bring their labels are ordered by class, then by id, as class folders are, so that the same images with
    the same names have one order in all of these.

    said: how labels were assigned, where that is not beyond doubt. classes: those that the data say they are of, where
    that is a part of ImageNet-1k's; None: any. at_least: the model may have more classes than `num_classes`.
    corruptions: image -> what was done to it, of ImageNet-C. ours: of 1000 classes, these are ImageNet-1k's.
    by_folder: the classes of class folders, where the user names no file that says them.
    """

    root: str
    labels: Mapping[str, Label]
    num_classes: int
    notes: list[str] = field(default_factory=list)
    said: str = ""
    classes: frozenset[int] | None = None
    corruptions: Mapping[str, str] = field(default_factory=dict)
    ours: bool = True
    by_folder: Mapping[str, Label] = field(default_factory=dict)
    at_least: bool = False


def build_index(tree: FileTree, options: Options) -> Index:
    """Raises RequestError when the tree does not hold images that are all labelled in one of the layouts."""
    if isinstance(tree, ParquetTree):
        if options.labels:
            raise RequestError(f"labels '{options.labels}': Parquet files bring their own; leave it out")
        return _from_attached(*labels_in_rows(tree, options.num_classes))
    if not any(is_image(name) for name in tree.files):
        raise RequestError(
            f"data '{tree.location}' holds no image{_what_there_is(tree)}; expected val/<synset>/*.JPEG or flat images"
        )
    if options.corruptions:
        beside = {name: value for name in ("labels", "num_classes") if (value := getattr(options, name))}
        if beside:
            name, value = beside.popitem()
            raise RequestError(f"corruptions stand beside {name}={value}; ImageNet-C's folders say it, leave it out")
        return _from_corruptions(tree, options.corruptions)
    if not options.labels and (attached := labels_beside(tree, options.num_classes)):
        return _from_attached(*attached)
    files = LabelFiles(tree, options.labels)
    root = find_root(tree)
    images = [name for name in inside(tree.files, root) if is_image(name)]
    flat = [name for name in images if "/" not in name]
    names = Images(images, {*root.split("/"), *VAL_FOLDERS, tree.location.name})
    found = _labels_of_images(files, names, root, options, flat=bool(flat))
    if found:
        return _from_labels(root, _agreed(found), images, named=bool(options.labels))
    if flat:
        image = next((name for name in flat if not labels_in_names([name])), flat[0])
        raise RequestError(
            f"image '{tree.where(join(root, image))}' has no label: it lies outside class folders, and there is "
            f"no {GROUND_TRUTH} or CSV of name,label beside it, nor a synset in its name; add one, or name it with "
            "--task-option labels=FILE"
        )
    check_level(tree, root)
    return _from_folders(tree, root, options, files, names)


def _labels_of_images(files: LabelFiles, names: Images, root: str, options: Options, flat: bool) -> list[Labels]:
    """What says labels of the images themselves; of class folders that are no synsets, only what says all of them."""
    if not flat and not options.labels and {name.split("/")[0] for name in names.names} <= synset_index().keys():
        return []
    found = files.of_images(names, root, options.num_classes, options.ground_truth_ids, flat)
    if not flat and not options.labels:
        return [labels for labels in found if labels.by_image.keys() >= names.known]
    if flat and not options.labels and options.num_classes in (None, IMAGENET_CLASSES):
        by_name = labels_in_names(names.names)
        found += [Labels("the images' own names", by_name, IMAGENET_CLASSES)] if by_name else []
    return found


def _what_there_is(tree: FileTree) -> str:
    """The commonest kind of file, for a message."""
    kinds = [Path(name).suffix.lower() for name in tree.files]
    if not kinds:
        return ""
    kind, count = Counter(kinds).most_common(1)[0]
    packed = ", which are to be unpacked" if kind in PACKED else ""
    return f", but {count} files {kind or 'without a suffix'} (first '{tree.files[kinds.index(kind)]}'){packed}"


def _from_attached(
    labels: dict[str, int], num_classes: int, classes: frozenset[int] | None = None, said: str = ""
) -> Index:
    by_class = dict(sorted(labels.items(), key=lambda item: (item[1], item[0])))
    return Index("", by_class, num_classes, said=said, classes=classes, ours=not said)


def _agreed(found: list[Labels]) -> Labels:
    """The first of what says labels; RequestError where another says otherwise. Several right labels are asked for."""
    first, *others = [one for one in found if not one.several] or found
    for other in others:
        for image, label in other.by_image.items():
            if first.by_image.get(image, label) != label:
                raise RequestError(
                    f"several label files: by {first.address} image '{image}' is of class {first.by_image[image]}, by "
                    f"{other.address} of {label}; choose one with --task-option labels=FILE"
                )
    unused = [one.address for one in found if one.several and one is not first]
    if unused:
        first.notes.append(
            f"{unused[0]} is not used, for {first.address} has one label an image; use it with "
            f"--task-option labels={unused[0]}"
        )
    return first


def _from_labels(root: str, labels: Labels, images: list[str], named: bool) -> Index:
    if not labels.by_image:
        raise RequestError(f"label file '{labels.address}' lists no image; write one line for every image")
    known, notes = set(images), list(labels.notes)
    there = {name: label for name, label in labels.by_image.items() if name in known}
    kept = labels.by_image
    if 2 * len(there) < len(kept):
        notes.append(
            f"{labels.address} lists {len(kept)} images, of which {len(there)} are here; these are used, as a part of "
            "the data set"
        )
        kept = there
    classless = set(labels.classless)
    unused = [name for name in images if name not in labels.by_image and name not in classless]
    notes += _note(unused, f"have no line in {labels.address} and are not used")
    of_images = dict(sorted(kept.items()))
    how = f"those of {labels.name}" + (", of which any of an image's is right" if labels.several else "")
    said = say_labels(how, of_images) if labels.several or not named else ""
    return Index(
        root, of_images, labels.num_classes, notes, said,
        classes=occurring(labels.by_image) if labels.address.endswith(ANNOTATIONS) else None,
    )  # fmt: skip


def _from_corruptions(tree: FileTree, asked: str | Sequence[str]) -> Index:
    above, images = tree.location.absolute().name, [name for name in tree.files if is_image(name)]
    found = {name: at for name in images if (at := corruption_in(name, above))}
    there = sorted({corruption for corruption, *_ in found.values()})
    chosen, notes = choose_corruptions(there, asked, str(tree.location))
    read = {name: at for name, at in found.items() if at[0] in chosen}
    severities: dict[str, set[str]] = {}
    for corruption, severity, _ in read.values():
        severities.setdefault(corruption, set()).add(severity)
    notes += _note(
        [name for name in images if name not in found], "lie in no CORRUPTION/SEVERITY/SYNSET and are left out"
    )
    labels = {name: synset_index()[synset] for name, (*_, synset) in read.items()}
    said = say_what_mce_is_over({name: sorted(of) for name, of in severities.items()})
    return Index(
        "", labels, IMAGENET_CLASSES, notes, said,
        classes=occurring(labels), corruptions={name: corruption for name, (corruption, *_) in read.items()},
    )  # fmt: skip


def _from_folders(tree: FileTree, root: str, options: Options, files: LabelFiles, names: Images) -> Index:
    folders = [name for name in inside(tree.folders, root) if "/" not in name]
    below = [name for name in inside(tree.files, root) if "/" in name]
    filled = {name.split("/")[0] for name in names.names}
    empty = [name for name in folders if name not in filled]
    if empty:
        raise RequestError(
            f"class folder '{tree.where(join(root, empty[0]))}' holds no image ({len(empty)} such of {len(folders)}); "
            "put its images there or remove the folder"
        )
    tables = files.of_folders(root)
    order = order_folders(folders, options.num_classes, tables, files.named is not None, str(tree.location))
    ignored = [
        join(place, name) for place in upwards(root) for name in inside(tree.files, place) if is_label_file(name)
    ]
    ignored = [name for name in ignored if f" {name}: " not in order.said]
    by_image = {name: order.classes[folder] for name in names.names if (folder := name.split("/")[0]) in order.classes}
    labels = dict(sorted(by_image.items(), key=lambda item: (item[1], item[0])))
    notes = _note([name for name in below if not is_image(name)], "are no images and are left out")
    notes += _note(
        [name for name in names.names if name not in labels], "lie in folders without a class, and are left out"
    )
    notes += _note(ignored, "are not used, because class folders say the labels (labels=FILE: that file does)")
    notes += [f"{file} is not used, for it speaks of a part of the class folders" for file in order.unused]
    return Index(
        root, labels, order.num_classes, notes, order.said, at_least=order.at_least,
        classes=occurring(labels) if order.by_synsets and not options.num_classes else None, ours=order.by_synsets,
        by_folder={} if files.named else order.classes,
    )  # fmt: skip


def occurring(labels: Mapping[str, Label]) -> frozenset[int]:
    """All classes that are right for some image."""
    return frozenset(one for of in labels.values() for one in (of if isinstance(of, tuple) else (of,)))


def _note(names: list[str], what: str) -> list[str]:
    return [f"{len(names)} files {what}, first {names[0]}"] if names else []
