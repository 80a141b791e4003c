"""Captions in files that are no JSON value: a line a caption, or an object a line.

Flickr's (`results_20130124.token`, `Flickr8k.token.txt`: NAME#NUMBER, a tab, the caption), their copies on Kaggle
(`captions.txt`: image,caption; `results.csv`, between bars), and Hugging Face's `metadata.jsonl`.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any, Literal

from tasks.coco.fields import Invalid, parse

IMAGE = ("image", "file_name", "filename", "image_name", "image_path", "img")
CAPTION = ("caption", "captions", "text", "comment", "raw")
"""How lists name an image's file, and what is said of it."""
TOKEN = re.compile(r"(.+?\.\w+)#\d+\t(.*)")


def read_content(data: bytes) -> Any:
    """The JSON value in a file, or a list of {"image": name, "caption": text} in the order of its lines."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return parse(data)  # which says it
    lines = [line for line in text.splitlines() if line.strip()]
    first = lines[0].lstrip() if lines else ""
    if TOKEN.fullmatch(first):
        return [_of_token(number, line) for number, line in enumerate(lines, 1)]
    if first.startswith("{") and first.rstrip().endswith("}") and len(lines) > 1:
        return [_of_line(number, line) for number, line in enumerate(lines, 1)]
    if first[:1] not in ("{", "[") and (mark := next((mark for mark in "|,\t" if mark in first), "")):
        return _of_columns(text, mark) or parse(data)
    return parse(data)


def named_alike(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a list with its image and caption by these names, where it has both by other names."""
    image, caption = (next((key for key in keys if key in entry), None) for keys in (IMAGE, CAPTION))
    if image is None or caption is None:
        return entry
    return {**entry, "image": entry[image], "caption": entry[caption]}


def _of_token(number: int, line: str) -> dict[str, Any]:
    match = TOKEN.fullmatch(line)
    if match is None:
        raise Invalid(f"line {number} is no 'NAME#NUMBER', a tab and a caption; repair it")
    return {"image": match[1], "caption": match[2]}


def _of_line(number: int, line: str) -> Any:
    try:
        return parse(line.encode())
    except Invalid as error:
        raise Invalid(f"line {number}: {error}") from None


def _of_columns(text: str, mark: str) -> list[dict[str, Any]]:
    """Entries by the names in the first line; empty where these are not of images and captions."""
    try:
        quoting: Literal[0, 3] = csv.QUOTE_NONE if mark == "|" else csv.QUOTE_MINIMAL
        rows = list(csv.reader(io.StringIO(text), delimiter=mark, quoting=quoting, skipinitialspace=True))
    except csv.Error as error:
        raise Invalid(f"it is no table of columns ({error}); repair it") from None
    names = [name.strip().lower() for name in rows[0]]
    if not (set(names) & set(IMAGE) and set(names) & set(CAPTION)):
        return []
    entries = []
    for number, row in enumerate(rows[1:], 2):
        if row and len(row) != len(names):
            raise Invalid(
                f"row {number} has {len(row)} columns instead of {len(names)}; put a caption with commas in quotes"
            )
        entries += [named_alike(dict(zip(names, row)))] if row else []
    return entries
