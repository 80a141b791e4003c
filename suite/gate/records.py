"""A comparison as programs read it: a record a row, in the units that metrics are stored in."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from suite.gate.report import Report
from suite.gate.side import Entry
from suite.gate.verdict import Row


def records_of(report: Report) -> list[dict[str, Any]]:
    """new and base are A and B of `compare`, which has no verdict; what is not known is None."""
    return [_record(row, report) for row in report.rows]


def _record(row: Row, report: Report) -> dict[str, Any]:
    found = row.contrast
    seen = {} if found is None else {name: value for name, value in vars(found).items() if name != "metric"}
    return {
        **{f"{side}_{name}": value for side, entry in (("new", row.match.new), ("base", row.match.base))
           for name, value in _about(entry).items()},
        "metric": found and found.metric.name, **seen,
        "adjusted_p": row.adjusted, "margin": row.margin if report.verdict else None,
        "verdict": row.verdict if report.verdict else None, "reason": row.reason,
        "samples_needed": row.needed, "disputed": row.match.disputed or None,
        "speed": asdict(row.pace), "memory": row.memory,
    }  # fmt: skip


def _about(entry: Entry | None) -> dict[str, Any]:
    names = ("method", "rate", "resolved_rate", "gmacs", "reduction")
    return {name: entry and getattr(entry, name) for name in names}
