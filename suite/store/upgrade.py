"""Stored files of earlier versions get today's fields when they are read, one step from each version to the next.

Whoever changes a field of a stored JSON file adds a step here; `suite.store.schema` says what the fields are today. The
files stay as they are: a folder that is continued holds files of several versions, and each says its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from suite.store.schema import OLDEST, SCHEMA, TIMINGS
from suite.store.sealed import DamagedError, Fields

AGGREGATES_OF_3: dict[str, Fields] = {
    "top1": {"kind": "share", "column": "correct"},
    "top5": {"kind": "share", "column": "correct5"},
    **{name: {"kind": "mean", "column": name} for name in ("cider", "rouge_l", "spice")},
    **{f"bleu_{n}": {"kind": "bleu", "order": n} for n in range(1, 5)},
    "meteor": {"kind": "meteor"},
    "length": {"kind": "mean_length", "column": "tokens"},
    "miou": {"kind": "mean_iou"},
    "aacc": {"kind": "pixel_accuracy"},
    "macc": {"kind": "mean_accuracy"},
}
"""What the metrics were made of that version 3 knew by their names."""


def from_3_to_4(kind: str, fields: Fields) -> Fields:
    """Metrics say what they are made of, and what they are undefined without, of which nothing was known."""
    if kind == "run":
        for metric in fields["shown"]["metrics"]:
            metric.setdefault("needs", [])
            metric.setdefault("aggregate", AGGREGATES_OF_3.get(metric["name"]))
            metric.setdefault("bound_to_data", metric["name"] == "cider")
    return fields


def from_4_to_5(kind: str, fields: Fields) -> Fields:
    """A cell may have been timed under several runtimes, and none of them decides its outcomes."""
    if kind in TIMINGS:
        fields = name_runtime(fields)
        return {"runtimes": {fields["runtime"]: fields}}
    if kind == "run":
        fields["identity"].pop("compile", None)
        if {"runtime", "compile"} & fields["spec"].keys():
            fields["spec"] = name_runtime(fields["spec"])
            fields["spec"]["runtime"] = [fields["spec"]["runtime"]]
        for cell in fields["cells"]:
            if isinstance(cell, dict):  # of a baseline, which holds what was timed itself
                cell |= {name: cell[name] and name_runtime(cell[name]) for name in TIMINGS if name in cell}
    return fields


def name_runtime(fields: Fields) -> Fields:
    """With a name in place of what was compile=True or False, or the name of a runtime that is neither."""
    fields = dict(fields)
    flag = fields.pop("compile", fields.get("runtime", False))
    return {**fields, "runtime": {False: "eager", True: "compiled"}.get(flag, flag)}


STEPS: dict[int, Callable[[str, Fields], Fields]] = {3: from_3_to_4, 4: from_4_to_5}
"""Version -> what brings a file of it to the next one, from `OLDEST` to the one before `SCHEMA`."""


def upgrade(kind: str, path: Path, stored: Fields) -> Fields:
    """The fields of a file of `kind` ('run', 'environment', or a key of CELL_FILES) as this version has them.

    stored: what the file holds, with its version as "schema", which is taken out. DamagedError for a version that no
    program has written it by, or fields that it did not write.
    """
    fields = dict(stored)
    version = fields.pop("schema", OLDEST)
    if type(version) is not int or not OLDEST <= version <= SCHEMA:
        raise DamagedError(path, f"it has schema {version!r}, this version reads {OLDEST} to {SCHEMA}")
    try:
        for number in range(version, SCHEMA):
            fields = STEPS[number](kind, fields)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # possible without a checksum alone
        raise DamagedError(path, f"it is none of schema {version}: {type(error).__name__}: {error}") from error
    return fields
