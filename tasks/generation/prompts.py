"""What is to be drawn: prompts of a text or CSV file, captions of COCO's images, ImageNet's classes."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.errors import RequestError
from tasks.coco.annotations import read_annotations
from tasks.imagenet.labels import first_names
from tasks.zero_shot import read_lines

IMAGENET = "ImageNet's classes"


@dataclass(frozen=True)
class Prompt:
    """id: stable. label: the class of a prompt that is one, else the text. seed: of the noise, where it is given."""

    id: str
    text: str
    label: Any
    seed: int | None = None


def read_prompts(data: str | None, template: str) -> tuple[list[Prompt], str]:
    """The prompts, and in words where they are from.

    data: a .txt file, a prompt a line; a .csv file with the columns id, prompt and perhaps seed; a .json file of
    captions, of which the first of every image is taken, in the order of the images' ids; None: ImageNet's classes, by
    `template` with {} for the first of a class' names. RequestError for another, or one that cannot be read.
    """
    if data is None:
        if template.count("{}") != 1:
            raise RequestError(f"template {template!r} has not one {{}}; write 'a photo of a {{}}'")
        names = enumerate(first_names())
        return [Prompt(f"{i:03d}", template.replace("{}", name), i) for i, name in names], IMAGENET
    path, read = Path(data), {".txt": _lines, ".csv": _table, ".json": _captions}
    if path.suffix.lower() not in read or not path.is_file():
        raise RequestError(
            f"data '{data}' is no file of prompts; give a .txt (a prompt a line), a .csv (id, prompt, seed), COCO's "
            "captions (.json), or leave it out for ImageNet's classes"
        )
    return read[path.suffix.lower()](path), path.name


def _lines(path: Path) -> list[Prompt]:
    lines = read_lines("data", str(path))
    width = len(str(len(lines)))
    return [Prompt(f"{number:0{width}d}", text, text) for number, text in enumerate(lines, start=1)]


def _table(path: Path) -> list[Prompt]:
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"data '{path}' cannot be read: {error}; save it as CSV in UTF-8") from error
    found = {}
    for number, row in enumerate(rows, start=2):
        id, text, seed = (str(row.get(name) or "").strip() for name in ("id", "prompt", "seed"))
        if not id or not text or (seed and not seed.isdecimal()):
            raise RequestError(f"data '{path}', line {number}: {row!r} is not an id, a prompt and perhaps a seed")
        if id in found:
            raise RequestError(f"data '{path}', line {number}: id {id!r} stands there twice; give every prompt its own")
        found[id] = Prompt(id, text, text, int(seed) if seed else None)
    if not found:
        raise RequestError(f"data '{path}' has no prompt; write a head line id,prompt and one line or more")
    return list(found.values())


def _captions(path: Path) -> list[Prompt]:
    try:
        images = read_annotations(str(path), path.read_bytes()).images
    except OSError as error:
        raise RequestError(f"data '{path}' cannot be read: {error}") from error
    in_order = sorted(
        images.items(), key=lambda item: (len(item[0]), item[0]) if item[0].isdecimal() else (99, item[0])
    )
    return [Prompt(id, image.captions[0], image.captions[0]) for id, image in in_order if image.captions]
