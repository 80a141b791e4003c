"""Pairs of images and masks in ADE20K's layout: `images/<split>/NAME.jpg` and `annotations/<split>/NAME.png`."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from suite.errors import RequestError
from tasks.reading.images import SUFFIXES
from tasks.reading.trees.tree import FileTree

SPLITS = ("validation", "training")
FOLDERS = ("images", "annotations")
MASK_SUFFIXES = (".png",)


@dataclass(frozen=True)
class Pair:
    """Names in the tree. label: the mask's, below the data set's own folder, wherever that lies."""

    image: str
    mask: str
    label: str


def find_pairs(tree: FileTree, split: str) -> tuple[dict[str, Pair], list[str]]:
    """All pairs by id (the files' common name without its ending), sorted, and notes on files that are left out.

    Raises RequestError when the folders are not there, or an image and a mask are not each other's only partner.
    """
    if split not in SPLITS:
        raise RequestError(f"split {split!r} is unknown; use {' or '.join(SPLITS)}")
    root = _root(tree, split)
    folders = [posixpath.join(root, kind, split) for kind in FOLDERS]
    (images, others), (masks, other_masks) = (
        _by_stem(tree, folder, suffixes) for folder, suffixes in zip(folders, (SUFFIXES, MASK_SUFFIXES), strict=True)
    )
    for folder, found, what in zip(folders, (images, masks), ("image", "mask (*.png)"), strict=True):
        if not found:
            raise RequestError(f"data '{tree.where(folder)}' holds no {what}; name the folder or archive of ADE20K")
    _check_partners(images, masks, tree.where(folders[1]), "mask", ".png")
    _check_partners(masks, images, tree.where(folders[0]), "image", ".jpg")
    pairs = {id: Pair(images[id], masks[id], _below(masks[id], root)) for id in sorted(images)}
    left_out = [*others, *other_masks]
    notes = [f"{len(left_out)} files are neither images nor masks, first {left_out[0]}"] if left_out else []
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
    missing = [tail for tail in tails if not roots[tail]] or tails
    raise RequestError(
        f"data '{tree.location}' is not ADE20K's: it holds no folder {' and no folder '.join(missing)}"
        f"{'' if len(missing) == 1 else ' beside each other'}; name the folder or archive of ADEChallengeData2016"
    )


def _by_stem(tree: FileTree, folder: str, suffixes: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Files of a folder by name without ending, and those with other endings. RequestError for one name twice."""
    found: dict[str, str] = {}
    others = []
    for name in tree.files:
        if not name.startswith(f"{folder}/"):
            continue
        if not name.lower().endswith(suffixes):
            others.append(name)
            continue
        stem = posixpath.splitext(_below(name, folder))[0]
        other = found.setdefault(stem, name)
        if other != name:
            raise RequestError(f"'{tree.where(other)}' and '{tree.where(name)}' are both {stem!r}; remove one")
    return found, others


def _check_partners(found: dict[str, str], partners: dict[str, str], folder: str, what: str, ending: str) -> None:
    alone = sorted(found.keys() - partners.keys())
    if alone:
        number = f"{len(alone)} of {len(found)} files have no {what}, first " if len(alone) > 1 else ""
        raise RequestError(
            f"{number}'{found[alone[0]]}' has no {what} '{posixpath.join(folder, alone[0] + ending)}'; add it, or "
            "remove its partner"
        )


def _below(name: str, folder: str) -> str:
    return name.removeprefix(f"{folder}/") if folder else name
