"""Captions of images from a JSON file, read strictly, in any of the forms that people have them in.

COCO's own (`captions_val2014.json`: images and annotations), as nocaps has it, too; Karpathy's (`dataset_coco.json`,
`dataset_flickr30k.json`: images with sentences and a split); the lists of BLIP and LAVIS (`coco_karpathy_val.json`:
objects of image and caption); the tables of Flickr8k, Flickr30k and Hugging Face (`tasks.coco.tables`); TextCaps'
(objects below `data`); and a mapping from file names to lists of captions.
Nothing is completed or guessed: a file that does not say what was seen in every image is refused. A caption without a
word says nothing, and is left out and counted.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suite.errors import RequestError
from tasks.coco.fields import (
    Invalid,
    check_objects,
    has_word,
    read_caption,
    read_id,
    read_list,
    read_name,
    read_text,
    shown,
)
from tasks.coco.tables import named_alike, read_content

COCO, KARPATHY, LIST, TEXTCAPS, MAPPING = "COCO", "Karpathy", "list", "TextCaps", "mapping"
DEFAULT_SPLIT = "test"


@dataclass(frozen=True)
class CaptionedImage:
    """An image as a file lists it: its file's name there, with forward slashes, and its captions in their order.

    empty: how many more there are, without a word.
    """

    file: str
    captions: tuple[str, ...]
    empty: int = 0


@dataclass(frozen=True)
class Annotations:
    """What an annotation file says. address: the file, for people. images: by id, COCO's or the name of the file."""

    address: str
    form: str
    images: dict[str, CaptionedImage]

    @property
    def notes(self) -> list[str]:
        """What was left out."""
        empty = {id: image.empty for id, image in self.images.items() if image.empty}
        if not empty:
            return []
        what = "caption without a word is" if sum(empty.values()) == 1 else "captions without a word are"
        return [f"{sum(empty.values())} {what} left out, first of image {next(iter(empty))!r}"]


def read_annotations(address: str, data: bytes, split: str | None = None) -> Annotations:
    """The captions in the bytes of the file at `address`.

    split: of a Karpathy file, 'test' if None. Raises RequestError that names the file, the first item that is wrong,
    and what to do.
    """
    try:
        content = read_content(data)
        if isinstance(content, list):
            content = [named_alike(entry) if isinstance(entry, dict) else entry for entry in content]
        form = _form(content)
        if split is not None and form != KARPATHY:
            raise Invalid(f"it has no splits, and split {split!r} is asked for; leave the option out")
        if form == KARPATHY:
            images = _from_karpathy(content, DEFAULT_SPLIT if split is None else split)
        else:
            images = READERS[form](content)
        if not images:
            raise Invalid("it lists no image; add images and their captions")
    except Invalid as error:
        raise RequestError(f"annotation file '{address}': {error}") from None
    return Annotations(address, form, images)


def _form(content: Any) -> str:
    if isinstance(content, list):
        return _form_of_list(check_objects(content, lambda number: f"entry {number}"))
    if not isinstance(content, dict):
        raise Invalid(
            f"it holds {shown(content)} instead of an object or a list; COCO's and Karpathy's form have 'images', and "
            'a mapping is written {"file.jpg": ["caption", "caption"]}'
        )
    if "images" in content and "annotations" in content:
        return COCO
    if "images" not in content:
        if "annotations" in content:
            raise Invalid("it has 'annotations' and no 'images'; name the file that lists both")
        return TEXTCAPS if isinstance(content.get("data"), list) and "dataset_name" in content else MAPPING
    images = read_list(content, "images")
    if images and not any("sentences" in image for image in images):
        raise Invalid("its images have neither 'annotations' nor 'sentences'; name a file with captions")
    return KARPATHY


def _form_of_list(items: list[dict[str, Any]]) -> str:
    keys = items[0].keys() if items else {"image", "caption"}
    if {"image", "caption"} <= keys:
        return LIST
    if {"image_id", "caption"} <= keys:
        raise Invalid(
            "it is a list of captions by 'image_id' and names no image files, as results are; `score --captions FILE` "
            "scores such a file"
        )
    has = ", ".join(map(repr, keys)) or "nothing"
    raise Invalid(
        f"it is a list of objects with {has}; those of BLIP's and LAVIS' lists have 'image' and 'caption'; name a file "
        "with captions"
    )


def _captioned(file: str, captions: list[str], where: str) -> CaptionedImage:
    kept = tuple(filter(has_word, captions))
    if not kept:
        what = "no caption with a word" if captions else "no caption"
        raise Invalid(f"{where} has {what}; add one, or remove the image from the file")
    return CaptionedImage(file, kept, len(captions) - len(kept))


def _from_coco(content: dict[str, Any]) -> dict[str, CaptionedImage]:
    files: dict[str, str] = {}
    images = read_list(content, "images")
    if images and not any("file_name" in image for image in images):
        raise Invalid(
            "its images have ids and no 'file_name', as the reference files (*_gt.json) of BLIP and LAVIS; name the "
            "file that lists the images, such as coco_karpathy_val.json"
        )
    for number, image in enumerate(images):
        id = read_id(image, "id", f"images[{number}]")
        if id in files:
            raise Invalid(f"image id {id!r} is listed twice; list every image once")
        files[id] = read_name(image.get("file_name"), f"image id {id!r}")
    captions: dict[str, list[str]] = {id: [] for id in files}
    seen: set[str] = set()
    for number, annotation in enumerate(read_list(content, "annotations")):
        where = f"annotations[{number}]"
        id = read_id(annotation, "image_id", where)
        if id not in captions:
            raise Invalid(f"{where} is of image id {id!r}, which is not listed; list the image or remove the caption")
        if "caption" not in annotation:
            raise Invalid(f"{where} has no 'caption'; name a file of captions, such as captions_val2014.json")
        if "id" in annotation:
            own = read_id(annotation, "id", where)
            if own in seen:
                raise Invalid(f"annotation id {own!r} stands there twice; give every caption an id of its own")
            seen.add(own)
        captions[id].append(read_caption(annotation["caption"], f"image id {id!r}"))
    return {id: _captioned(file, captions[id], f"image id {id!r} ({file!r})") for id, file in files.items()}


def _from_karpathy(content: dict[str, Any], split: str) -> dict[str, CaptionedImage]:
    """Ids are COCO's, or of files that are not of COCO (Flickr8k, Flickr30k) the names of the files."""
    found: dict[str, CaptionedImage] = {}
    splits: dict[str, str] = {}
    images = read_list(content, "images")
    key = "cocoid" if any("cocoid" in image for image in images) else "filename"
    for number, image in enumerate(images):
        id = read_id(image, key, f"images[{number}]")
        if id in splits:
            raise Invalid(f"image id {id!r} is listed twice; list every image once")
        splits[id] = read_text(image.get("split"), f"the split of image id {id!r}")
        if splits[id] != split:
            continue
        file = read_name(image.get("filename"), f"image id {id!r}")
        folder = read_text(image["filepath"], f"the filepath of image id {id!r}") if image.get("filepath") else ""
        captions = [
            read_caption(sentence.get("raw"), f"image id {id!r}")
            for sentence in read_list(image, "sentences", f"of image id {id!r}")
        ]
        found[id] = _captioned(posixpath.join(folder, file), captions, f"image id {id!r} ({file!r})")
    if splits and not found:
        known = ", ".join(sorted(set(splits.values())))
        raise Invalid(f"no image is in split {split!r}; choose one of {known} with --task-option split=NAME")
    return found


def _from_list(content: list[dict[str, Any]]) -> dict[str, CaptionedImage]:
    """An entry has a caption, or a list of them; one that has a part of an image's captions is followed by others."""
    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(content):
        file = read_name(entry.get("image"), f"entry {number}")
        said = entry.get("caption")
        if isinstance(said, list) and file in captions:
            raise Invalid(f"{file!r} is listed twice; list every image once")
        texts = said if isinstance(said, list) else [said]
        captions.setdefault(file, []).extend(read_caption(text, f"entry {number} ({file!r})") for text in texts)
    return {file: _captioned(file, texts, repr(file)) for file, texts in captions.items()}


def _from_textcaps(content: dict[str, Any]) -> dict[str, CaptionedImage]:
    """An entry a caption; files are called after the ids of the images."""
    captions: dict[str, list[str]] = {}
    seen: set[str] = set()
    for number, entry in enumerate(read_list(content, "data")):
        id = read_id(entry, "image_id", f"data[{number}]")
        if "caption_str" not in entry:
            raise Invalid(f"data[{number}] has no 'caption_str', as in TextCaps' test set; name a file with captions")
        if "caption_id" in entry:
            own = read_id(entry, "caption_id", f"data[{number}]")
            if own in seen:
                raise Invalid(f"caption_id {own!r} stands there twice; give every caption an id of its own")
            seen.add(own)
        captions.setdefault(id, []).append(read_caption(entry["caption_str"], f"image id {id!r}"))
    return {id: _captioned(f"{id}.jpg", texts, f"image id {id!r}") for id, texts in captions.items()}


def _from_mapping(content: dict[str, Any]) -> dict[str, CaptionedImage]:
    found: dict[str, CaptionedImage] = {}
    for name, captions in content.items():
        id = read_name(name, "an entry")
        if id in found:
            raise Invalid(f"{name!r} and another entry are the same file; join the two entries, or remove one")
        if not isinstance(captions, list):
            raise Invalid(f'the captions of {id!r} are {shown(captions)} instead of a list; write ["caption", ...]')
        found[id] = _captioned(id, [read_caption(text, repr(id)) for text in captions], repr(id))
    return found


READERS: dict[str, Callable[[Any], dict[str, CaptionedImage]]] = {
    COCO: _from_coco,
    LIST: _from_list,
    TEXTCAPS: _from_textcaps,
    MAPPING: _from_mapping,
}
