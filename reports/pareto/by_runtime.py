"""A group as another runtime ran it: its scores and costs, with the times, and the memory, of that runtime."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reports.frame import COLUMNS, TEXT, typed
from reports.groups import Group
from reports.speeds import TIMED, timing_of


def further_runtimes(group: Group) -> list[str]:
    """Those that any of its cells was timed under, beside the one whose times stand in its frame."""
    timed = dict.fromkeys(name for of in _times(group) for name in of)
    return [name for name in timed if name not in set(group.frame.runtime)]


def under(group: Group, runtime: str) -> Group:
    """The group with the times of a runtime: n/a where a cell was not timed under it, and for what other times said."""
    rows = [of.get(runtime, {}) for of in _times(group)]
    columns = {name: [row.get(name, "" if COLUMNS[name] == TEXT else None) for row in rows] for name in TIMED}
    columns["dominated_time"] = [None] * len(rows)
    frame = typed(group.frame.assign(**columns), {name: COLUMNS[name] for name in columns})
    context = [{**of, **row.get("timing", timing_of(None))} for of, row in zip(group.context, rows, strict=True)]
    return replace(group, frame=frame, context=context)


def _times(group: Group) -> list[dict[str, dict[str, Any]]]:
    """Of every cell, runtime -> what was timed under it on the device of the group's own times."""
    devices = group.seen("device")
    return [
        {row["runtime"]: row for row in reversed(of.get("speeds", ())) if row["device"] in devices}
        for of in group.context
    ]
