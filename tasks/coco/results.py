"""Captions that are there already, in a results file, and the references that they are scored against.

Files as COCO's server wants them ([{"image_id": 42, "caption": "..."}]), which BLIP, LAVIS and others write, too, and
mappings of images to captions. An image is known by its id, the name of its file, or COCO's number in that.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from suite.contract.task import ReadError, Sample, Summary
from suite.errors import CellError, RequestError
from tasks.captioning import CaptioningTask
from tasks.coco.annotations import Annotations, read_annotations
from tasks.coco.fields import Invalid, check_objects, parse, read_caption, read_id, shown
from tasks.coco.index import coco_number, find_annotations, read_outside
from tasks.reading.trees.opening import open_tree
from tasks.reading.trees.tree import composed


class References(CaptioningTask):
    """Reference captions without their images: no model is needed where the captions are there."""

    def __init__(self, listed: Annotations) -> None:
        super().__init__()
        self.samples = [Sample(id, listed.images[id].captions) for id in sorted(listed.images)]
        self.notes = listed.notes

    def load(self, sample: Sample, preprocessing: Any) -> Tensor:
        """Raises ReadError."""
        raise ReadError(sample.id, "", "references have no image")


@dataclass(frozen=True)
class CaptionResults:
    """captions: by the ids of the references. notes: what the user should read once."""

    captions: dict[str, str]
    notes: tuple[str, ...] = ()


def score_results(path: Path, data: str | None, annotations: str | None, split: str | None) -> Summary | CellError:
    """The scores of the captions in the file at `path`, or why there are none; see `read_references`.

    RequestError for what cannot be read, captions of images without references, and two captions of one image.
    """
    listed = read_references(data, annotations, split)
    try:
        written = path.read_bytes()
    except OSError as error:
        raise RequestError(f"captions '{path}' cannot be read ({error.strerror}); name a JSON file") from error
    task, results = References(listed), read_results(str(path), written, listed)
    rows = pd.DataFrame({"id": list(results.captions), "prediction": list(results.captions.values())})
    ((_, found),) = task.summaries({str(path): rows})
    if isinstance(found, CellError):
        return found
    return Summary(found.scores, found.samples, (*task.notes, *results.notes, *found.notes))


def read_references(data: str | None, annotations: str | None, split: str | None) -> Annotations:
    """What an annotation file says. data: the file, or a folder or archive that holds it; annotations, split: as of
    task `coco-caption`. RequestError where there is none, or it is wrong."""
    if data is None and annotations is None:
        raise RequestError("no references given; name their annotation file, or the data that hold it, with --data")
    alone = annotations if data is None else data if annotations is None and Path(data).suffix == ".json" else None
    file = read_outside(Path(alone)) if alone is not None else find_annotations(open_tree(data), annotations)
    return read_annotations(file.address, file.data, split)


def read_results(address: str, data: bytes, listed: Annotations) -> CaptionResults:
    """The captions in the bytes of the results file at `address`, by the ids of the references."""
    try:
        found = dict(_captions(parse(data), _ids_by_name(listed)))
    except Invalid as error:
        raise RequestError(f"captions '{address}': {error}") from None
    missing = [id for id in listed.images if id not in found]
    if not missing:
        return CaptionResults(found)
    some = f"{len(missing)} of {len(listed.images)} images have no caption, first {missing[0]!r}"
    return CaptionResults(found, (f"{some}: scores are of the others",))


def _captions(content: Any, ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(id, caption) of every entry."""
    seen: dict[str, str] = {}
    unknown = []
    entries = list(_entries(content))
    if not entries:
        raise Invalid("it holds no caption")
    for name, caption in entries:
        id = next((ids[known] for known in (composed(name), *sorted(_names(name))) if known in ids), None)
        if id is None:
            unknown.append(name)
        elif id in seen:
            raise Invalid(f"{seen[id]!r} and {name!r} are captions of one image, {id!r}; keep one")
        else:
            seen[id] = name
            yield id, caption
    if unknown:
        raise Invalid(
            f"{len(unknown)} of {len(entries)} captions are of images without references, first {unknown[0]!r}; name "
            "the annotation file of these images with --data, or its split with --task-option split=NAME"
        )


def _entries(content: Any) -> Iterator[tuple[str, str]]:
    """(image, caption) of every entry."""
    if isinstance(content, dict):
        for name, said in content.items():
            alone = said[0] if isinstance(said, list) and len(said) == 1 else said
            yield name, read_caption(alone, f"image {name!r}")
        return
    if not isinstance(content, list):
        raise Invalid(f'it holds {shown(content)}; results are written [{{"image_id": 42, "caption": "..."}}]')
    for number, item in enumerate(check_objects(content, lambda number: f"entry {number}")):
        key = next((key for key in ("image_id", "image", "file_name") if key in item), "image_id")
        name = read_id(item, key, f"entry {number}")
        yield name, read_caption(item.get("caption"), f"entry {number} (image {name!r})")


def _ids_by_name(listed: Annotations) -> dict[str, str]:
    """Ids by all that an image may be called where only one is called so; an id goes before other names."""
    owners: dict[str, set[str]] = {}
    for id, image in listed.images.items():
        for name in _names(image.file):
            owners.setdefault(name, set()).add(id)
    names = {name: next(iter(ids)) for name, ids in owners.items() if len(ids) == 1}
    return names | {composed(id): id for id in listed.images}


def _names(file: str) -> set[str]:
    """What else an image may be called: its file without folders, without its ending, or by COCO's number."""
    base = posixpath.basename(composed(file))
    number = coco_number(base) or coco_number(f"{base}.jpg")
    return {composed(file), base, posixpath.splitext(base)[0], *([number, number.lstrip("0")] if number else [])}
