"""Pairs of images and masks in ADE20K's layout: `images/<split>/NAME.jpg` and `annotations/<split>/NAME.png`."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from dataclasses import dataclass

from suite.errors import RequestError
from tasks.reading.images import SUFFIXES, is_image
from tasks.reading.trees.tree import FileTree, composed, say_forms

SPLITS = ("validation", "training")
FOLDERS = ("images", "annotations")
MASK_SUFFIXES = (".png",)
WANTED = ("image", "mask (*.png)")
REFUSE, SKIP = "refuse", "skip"
CITYSCAPES = "_leftImg8bit"  # at the end of its images' names, where those of the masks have `_gtFine_labelTrainIds`
SEPARATOR = re.compile(r"[_.-]")
FULL = re.compile(r"ADE_(train|val|frame)_\d+_seg\.png")  # masks of the full data set, beside their pictures


@dataclass(frozen=True)
class Pair:
    """Names in the tree. label: the mask's, below the data set's own folder, wherever that lies."""

    image: str
    mask: str
    label: str


@dataclass(frozen=True)
class Naming:
    """What the user may say of the pairs' names; see `tasks.ade20k.task.Ade20k`."""

    mask_suffix: str | None = None
    unpaired: str = REFUSE


def find_pairs(tree: FileTree, split: str, naming: Naming = Naming()) -> tuple[dict[str, Pair], list[str]]:
    """All pairs by id (the image's name without its ending), sorted, and notes on what was decided and left out.

    Raises RequestError when the folders are not there, or an image and a mask are not each other's only partner.
    """
    if split not in SPLITS:
        raise RequestError(f"split {split!r} is unknown; use {' or '.join(SPLITS)}")
    if naming.unpaired not in (REFUSE, SKIP):
        raise RequestError(f"unpaired {naming.unpaired!r} is unknown; use {REFUSE} or {SKIP}")
    root = _root(tree, split)
    folders = [posixpath.join(root, kind, split) for kind in FOLDERS]
    (images, others), (masks, other_masks) = (
        _by_stem(tree, folder, suffixes) for folder, suffixes in zip(folders, (SUFFIXES, MASK_SUFFIXES), strict=True)
    )
    for folder, found, left, what in zip(folders, (images, masks), (others, other_masks), WANTED, strict=True):
        if not found:
            raise RequestError(f"data '{tree.where(folder)}' holds no {what}; {_remedy(left)}")
    masks, notes = _named_after(images, masks, naming.mask_suffix)
    if naming.unpaired == SKIP and images.keys() & masks.keys():
        notes += [*_leave_out(images, masks, "mask"), *_leave_out(masks, images, "image")]
    _check_partners(images, masks, tree.where(folders[1]), "mask", ".png")
    _check_partners(masks, images, tree.where(folders[0]), "image", ".jpg")
    pairs = {id: Pair(images[id], masks[id], _below(masks[id], root)) for id in sorted(images)}
    notes += say_forms(map(_stems, pairs.values()))
    left_out = [*others, *other_masks]
    notes += [f"{len(left_out)} files are neither images nor masks, first {left_out[0]}"] if left_out else []
    return pairs, notes


def _root(tree: FileTree, split: str) -> str:
    """The folder that holds `images` and `annotations`: the tree's top, or one below it."""
    tails = [f"{kind}/{split}" for kind in FOLDERS]
    roots = {
        tail: {folder[: -len(tail)].rstrip("/") for folder in tree.folders if f"/{folder}".endswith(f"/{tail}")}
        for tail in tails
    }
    both = sorted(set.intersection(*roots.values()))
    if len(both) == 1:
        return both[0]
    if both:
        listed = ", ".join(repr(root or ".") for root in both[:3])
        raise RequestError(
            f"data '{tree.location}' holds {len(both)} data sets: {listed}; name one of them with --data"
        )
    full = next((name for name in tree.files if FULL.fullmatch(posixpath.basename(name))), None)
    if full:
        raise RequestError(
            f"data '{tree.location}' is the full ADE20K: '{full}' numbers some 3000 kinds of objects by colours, and "
            "the task has the 150 classes of the scene parsing challenge; name the folder or archive of "
            "ADEChallengeData2016"
        )
    missing = [tail for tail in tails if not roots[tail]] or tails
    raise RequestError(
        f"data '{tree.location}' is not ADE20K's: it holds no folder {' and no folder '.join(missing)}"
        f"{'' if len(missing) == 1 else ' beside each other'}; name the folder or archive of ADEChallengeData2016"
    )


def _by_stem(tree: FileTree, folder: str, suffixes: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Files of a folder by name without ending, in one Unicode form, and those with other endings. RequestError for one
    name twice."""
    found: dict[str, str] = {}
    others = []
    for name in tree.files:
        if not name.startswith(f"{folder}/"):
            continue
        if not name.lower().endswith(suffixes):
            others.append(name)
            continue
        stem = composed(posixpath.splitext(_below(name, folder))[0])
        other = found.setdefault(stem, name)
        if other != name:
            raise RequestError(f"'{tree.where(other)}' and '{tree.where(name)}' are both {stem!r}; remove one")
    return found, others


def _remedy(left: list[str]) -> str:
    """What to do about a folder that holds `left` alone."""
    if any(map(is_image, left)):
        return (
            f"'{posixpath.basename(left[0])}' is no PNG, and JPEG changes labels where they meet: export the masks "
            "again, as PNG of indices"
        )
    return "name the folder or archive of ADE20K"


def _named_after(images: dict[str, str], masks: dict[str, str], suffix: str | None) -> tuple[dict[str, str], list[str]]:
    """The masks by the names of their images, and a note on what parts the two.

    That are equal names, or else an ending that the mask's has beyond the image's: `_seg`, `_labelTrainIds`. suffix:
    what the user says of it. RequestError where masks have several.
    """
    if suffix is None and images.keys() & masks.keys():
        return masks, []
    owners = {stem.removesuffix(CITYSCAPES): stem for stem in images}
    endings: dict[str, dict[str, str]] = defaultdict(dict)
    for stem, mask in masks.items():
        cuts = [len(stem), *(cut.start() for cut in reversed(list(SEPARATOR.finditer(stem))))]
        place = next((cut for cut in cuts if stem[:cut] in owners), None)
        if place is not None:
            endings[stem[place:]][owners[stem[:place]]] = mask
    if suffix is not None and suffix not in endings:
        known = ", ".join(map(repr, sorted(endings))) or "none beyond the images'"
        raise RequestError(f"mask_suffix {suffix!r}: no mask has that ending; they have {known}")
    if not endings:
        return masks, []
    if suffix is None and len(endings) > 1:
        counted = ", ".join(f"{ending} ({len(endings[ending])})" for ending in sorted(endings))
        raise RequestError(
            f"masks have several endings beyond their images' names: {counted}; say which hold the classes with "
            f"--task-option mask_suffix={max(endings)}"
        )
    chosen = suffix if suffix is not None else next(iter(endings))
    matched, rest = endings[chosen], {stem: mask for stem, mask in masks.items() if not stem.endswith(chosen)}
    note = f"masks are named after their images with {chosen!r} at the end"
    if suffix is None:
        return matched | rest, [note]  # which are nobody's
    return matched, [f"{note}, {len(rest)} others are left out" if rest else note]


def _stems(of: Pair) -> tuple[str, str]:
    """The names of a mask and its image as the files have them, without what the mask's has beyond."""
    image, mask = (posixpath.splitext(posixpath.basename(name))[0] for name in (of.image, of.mask))
    return mask.removesuffix(composed(mask)[len(composed(image)) :]), image


def _leave_out(found: dict[str, str], partners: dict[str, str], what: str) -> list[str]:
    """Take out of `found` what has no partner, and say so."""
    alone = sorted(found.keys() - partners.keys())
    if not alone:
        return []
    note = f"{len(alone)} of {len(found)} files have no {what} and are left out, first {found[alone[0]]}"
    for stem in alone:
        del found[stem]
    return [note]


def _check_partners(found: dict[str, str], partners: dict[str, str], folder: str, what: str, ending: str) -> None:
    alone = sorted(found.keys() - partners.keys())
    if alone:
        number = f"{len(alone)} of {len(found)} files have no {what}, first " if len(alone) > 1 else ""
        raise RequestError(
            f"{number}'{found[alone[0]]}' has no {what} '{posixpath.join(folder, alone[0] + ending)}'; add it, remove "
            "its partner, or leave out what has none with --task-option unpaired=skip"
        )


def _below(name: str, folder: str) -> str:
    return name.removeprefix(f"{folder}/") if folder else name
