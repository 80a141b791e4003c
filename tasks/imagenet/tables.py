"""Files that say labels, in the forms that they come in: CSV, lines of text, JSON; by names, or by place alone."""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from suite.errors import RequestError

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl")
NAMES = ("file_name", "filename", "file", "image", "path", "name")  # of an entry's image, in JSON
LABELS = ("label", "labels", "class", "class_id", "target")
NAME_COLUMNS = (*NAMES, "imageid", "image_id", "filepath", "image_path", "folder")  # of a CSV, in small letters
LABEL_COLUMNS = (*LABELS, "synset", "wnid", "predictionstring", "class_index", "classid", "category")


@dataclass(frozen=True)
class Row:
    """number: of the line or entry, counted from 1. name: what it speaks of; "" where its place alone says that.

    said: what it says of it; several, where several classes are right.
    """

    number: int
    name: str
    said: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A file of labels. address: where it is, for messages. lines: of a text, whole. meta: the meta.mat beside it."""

    address: str
    rows: tuple[Row, ...]
    lines: tuple[str, ...] = ()
    meta: bytes | None = None

    @property
    def name(self) -> str:
        return file_name(self.address)

    @property
    def named(self) -> bool:
        """Whether its rows have names."""
        return any(row.name for row in self.rows)

    @property
    def is_json(self) -> bool:
        return self.address.lower().endswith((".json", ".jsonl"))


def file_name(address: str) -> str:
    """The last part of a path, or of `archive:path`."""
    return posixpath.basename(address.replace("\\", "/").replace(":", "/"))


def read_table(address: str, data: bytes, meta: bytes | None = None) -> Table:
    """The table in the bytes of a file. RequestError where they are no text, no CSV or no JSON."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"label file '{address}' is not UTF-8 text ({error}); save it as UTF-8") from error
    if address.lower().endswith((".json", ".jsonl")):
        return Table(address, tuple(_entries(text, address)), meta=meta)
    lines = tuple(line.strip() for line in text.splitlines())
    if address.lower().endswith(".csv"):
        return Table(address, tuple(_csv_rows(text, address)), lines, meta)
    return Table(address, tuple(_line(number, line) for number, line in enumerate(lines, 1) if line), lines, meta)


def renamed(table: Table, names: Table) -> Table:
    """A table by the names that another has for its own: 'alarm_clock' of one with {"alarm_clock": "Alarm clock"}."""
    there = {row.name: row for row in table.rows}
    rows = [replace(there[said], name=row.name) for row in names.rows for said in row.said if said in there]
    return replace(table, rows=tuple(rows)) if rows else table


def _entries(text: str, address: str) -> Iterator[Row]:
    try:
        lines = address.lower().endswith(".jsonl")
        found = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except ValueError as error:
        raise RequestError(f"label file '{address}' is no JSON ({error}); write it again") from error
    if not isinstance(found, dict | list):
        raise RequestError(f"label file '{address}' holds neither names nor a list; write a JSON of one of these")
    if isinstance(found, dict) and isinstance(found.get("labels"), dict | list) and set(found) <= {"labels", "classes"}:
        found = found["labels"]  # StyleGAN's dataset.json, FiftyOne's labels.json
    entries = found.items() if isinstance(found, dict) else map(_entry, found)
    for number, (name, value) in enumerate(entries, 1):
        yield Row(number, str(name), _values(value))


def _entry(value: Any) -> tuple[str, Any]:
    """Name and label of an item of a list: {file_name: ..., label: ...}, [name, label], or a label by its place."""
    if isinstance(value, dict):
        return next((value[key] for key in NAMES if key in value), ""), value
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
        return value[0], value[1]
    return "", value


def _values(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = next((value[key] for key in LABELS if key in value), None)
    if isinstance(value, list):
        return tuple(map(str, value))
    return () if value is None else (str(value),)


def _csv_rows(text: str, address: str) -> Iterator[Row]:
    """Name and label are the columns that the first row calls so, else the first two; of a label of several words the
    first counts."""
    lines = [line for line in text.splitlines() if line.strip()]
    mark = ";" if lines and all(";" in line and "," not in line for line in lines) else ","
    try:
        rows = [
            (number, row) for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=mark), 1) if any(row)
        ]
    except csv.Error as error:
        raise RequestError(f"label file '{address}' is no CSV ({error}); write lines 'name,label'") from error
    name, label = _columns(rows[0][1] if rows else [])
    for number, row in rows:
        yield Row(
            number, row[name].strip() if len(row) > name else "", _several(row[label]) if len(row) > label else ()
        )


def _columns(first: list[str]) -> tuple[int, int]:
    """Which columns hold the name and the label, by the words of the first row."""
    words = [word.strip().lower() for word in first]
    found = [next((words.index(one) for one in known if one in words), None) for known in (NAME_COLUMNS, LABEL_COLUMNS)]
    name, label = found
    return (0, 1) if name is None or label is None else (name, label)


def _line(number: int, line: str) -> Row:
    """'name<tab>label...', 'name,label' or 'name label', of which the name may have spaces; or a label alone."""
    for mark in ("\t", ","):
        name, found, rest = line.partition(mark)
        if found:
            return Row(number, name.strip(), _several(rest.split(mark)[0]))
    apart = re.fullmatch(r"([^;]+\.\w+);(.+)", line)  # 'name;label', and not '409;530', which are two labels
    name, _, label = (apart[1], "", apart[2]) if apart else line.rpartition(" ")
    return Row(number, name.strip(), _several(label))


def _several(cell: str) -> tuple[str, ...]:
    """'409;530' are two classes that are both right; of several words the first counts."""
    words = re.sub(r"\s*;\s*", ";", cell.strip()).split()
    return tuple(filter(None, words[0].split(";"))) if words else ()
