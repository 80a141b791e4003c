"""Captions of images from a JSON file, read strictly, in any of three forms.

COCO's own (`captions_val2014.json`: images and annotations), Karpathy's (`dataset_coco.json`: images with sentences and
a split), and a mapping from file names to lists of captions. Nothing is dropped, completed or guessed: a file that does
not say exactly what was seen in every image is refused.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from dataclasses import dataclass
from typing import Any

from suite.errors import RequestError
from tasks.caption_scoring.tokens import on_one_line

COCO, KARPATHY, MAPPING = "COCO", "Karpathy", "mapping"
DEFAULT_SPLIT = "test"


@dataclass(frozen=True)
class CaptionedImage:
    """An image as a file lists it: its file's name there, with forward slashes, and its captions in their order."""

    file: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Annotations:
    """What an annotation file says. address: the file, for people. images: by id, COCO's or the name of the file."""

    address: str
    form: str
    images: dict[str, CaptionedImage]


class _Invalid(Exception):
    """What is wrong with a file's content, and what to do about it."""


def read_annotations(address: str, data: bytes, split: str | None = None) -> Annotations:
    """The captions in the bytes of the file at `address`.

    split: of a Karpathy file, 'test' if None. Raises RequestError that names the file, the first item that is wrong,
    and what to do.
    """
    try:
        content = _parse(data)
        form = _form(content)
        if split is not None and form != KARPATHY:
            raise _Invalid(f"it has no splits, and split {split!r} is asked for; leave the option out")
        if form == COCO:
            images = _from_coco(content)
        elif form == KARPATHY:
            images = _from_karpathy(content, DEFAULT_SPLIT if split is None else split)
        else:
            images = _from_mapping(content)
        if not images:
            raise _Invalid("it lists no image; add images and their captions")
    except _Invalid as error:
        raise RequestError(f"annotation file '{address}': {error}") from None
    return Annotations(address, form, images)


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise _Invalid(f"it is not UTF-8 text ({error}); save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _Invalid(f"it is not valid JSON ({error}); repair it or download it again") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # json itself would silently keep the last
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Invalid(f"{twice!r} stands there twice; join the two entries, or remove one")
    if "raw" in found:
        found.pop("tokens", None)  # most of the memory that a Karpathy file takes
    return found


def _form(content: Any) -> str:
    if not isinstance(content, dict):
        raise _Invalid(
            f"it holds a {type(content).__name__} instead of an object; COCO's and Karpathy's form have 'images', and "
            'a mapping is written {"file.jpg": ["caption", "caption"]}'
        )
    if "images" in content and "annotations" in content:
        return COCO
    if "images" not in content:
        if "annotations" in content:
            raise _Invalid("it has 'annotations' and no 'images'; name the file that lists both")
        return MAPPING
    images = _listed(content, "images")
    if images and not any("sentences" in image for image in images):
        raise _Invalid("its images have neither 'annotations' nor 'sentences'; name a file with captions")
    return KARPATHY


def _from_coco(content: dict[str, Any]) -> dict[str, CaptionedImage]:
    files: dict[str, str] = {}
    for number, image in enumerate(_listed(content, "images")):
        id = _id(image, "id", f"images[{number}]")
        if id in files:
            raise _Invalid(f"image id {id!r} is listed twice; list every image once")
        files[id] = _name(image.get("file_name"), f"image id {id!r}")
    captions: dict[str, list[str]] = {id: [] for id in files}
    seen: set[str] = set()
    for number, annotation in enumerate(_listed(content, "annotations")):
        where = f"annotations[{number}]"
        id = _id(annotation, "image_id", where)
        if id not in captions:
            raise _Invalid(f"{where} is of image id {id!r}, which is not listed; list the image or remove the caption")
        if "caption" not in annotation:
            raise _Invalid(f"{where} has no 'caption'; name a file of captions, such as captions_val2014.json")
        if "id" in annotation:
            own = _id(annotation, "id", where)
            if own in seen:
                raise _Invalid(f"annotation id {own!r} stands there twice; give every caption an id of its own")
            seen.add(own)
        captions[id].append(_caption(annotation["caption"], f"image id {id!r}"))
    return {id: CaptionedImage(file, _some(captions[id], f"image id {id!r} ({file!r})")) for id, file in files.items()}


def _from_karpathy(content: dict[str, Any], split: str) -> dict[str, CaptionedImage]:
    found: dict[str, CaptionedImage] = {}
    splits: dict[str, str] = {}
    for number, image in enumerate(_listed(content, "images")):
        id = _id(image, "cocoid", f"images[{number}]")
        if id in splits:
            raise _Invalid(f"image id {id!r} is listed twice; list every image once")
        splits[id] = _text(image.get("split"), f"the split of image id {id!r}")
        if splits[id] != split:
            continue
        file = _name(image.get("filename"), f"image id {id!r}")
        folder = _text(image["filepath"], f"the filepath of image id {id!r}") if image.get("filepath") else ""
        captions = [
            _caption(sentence.get("raw"), f"image id {id!r}")
            for sentence in _listed(image, "sentences", f"of image id {id!r}")
        ]
        found[id] = CaptionedImage(posixpath.join(folder, file), _some(captions, f"image id {id!r} ({file!r})"))
    if splits and not found:
        known = ", ".join(sorted(set(splits.values())))
        raise _Invalid(f"no image is in split {split!r}; choose one of {known} with --task-option split=NAME")
    return found


def _from_mapping(content: dict[str, Any]) -> dict[str, CaptionedImage]:
    found: dict[str, CaptionedImage] = {}
    for name, captions in content.items():
        id = _name(name, "an entry")
        if id in found:
            raise _Invalid(f"{name!r} and another entry are the same file; join the two entries, or remove one")
        if not isinstance(captions, list):
            raise _Invalid(f'the captions of {id!r} are {_shown(captions)} instead of a list; write ["caption", ...]')
        found[id] = CaptionedImage(id, _some([_caption(text, repr(id)) for text in captions], repr(id)))
    return found


def _listed(content: dict[str, Any], key: str, where: str = "") -> list[dict[str, Any]]:
    """The objects in the list under `key`."""
    what = f"{key!r} {where}".strip()
    items = content.get(key)
    if not isinstance(items, list):
        raise _Invalid(f"{what} is {_shown(items)} instead of a list; is it a file of captions?")
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise _Invalid(f"{key}[{number}] {where}".strip() + f" is {_shown(item)} instead of an object; repair it")
    return items


def _id(item: dict[str, Any], key: str, where: str) -> str:
    """Ids are compared as text: COCO writes numbers, other data sets of its form write names."""
    value = item.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _Invalid(f"{where} has the {key} {_shown(value)}; it must be a number or a name")
    return _text(str(value), f"the {key} of {where}")


def _name(value: Any, where: str) -> str:
    return posixpath.normpath(_text(value, f"the file name of {where}").replace("\\", "/"))


def _caption(value: Any, where: str) -> str:
    text = _text(value, f"a caption of {where}")
    if not any(map(str.isalnum, text)):  # scorers leave punctuation out: nothing would remain of it
        raise _Invalid(f"a caption of {where} is {_shown(text)}, without a word; write it, or remove the entry")
    return text if text.isprintable() else on_one_line(text)  # asking is much faster


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _Invalid(f"{what} is {_shown(value)} instead of text; write it, or remove the entry")
    if not value.strip():
        raise _Invalid(f"{what} is empty; write it, or remove the entry")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Invalid(f"{what} is {_shown(value)}, which is no complete Unicode text; repair it") from None
    return value


def _some(captions: list[str], where: str) -> tuple[str, ...]:
    if not captions:
        raise _Invalid(f"{where} has no caption; add one, or remove the image from the file")
    return tuple(captions)


def _shown(value: Any) -> str:
    """A value in one short line; ascii, so that it can be printed whatever it holds."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
