"""Whether a table that was written under a fault holds nothing that is wrong: gaps where something was lost, else what
an undisturbed run has."""

from __future__ import annotations

import csv
import io

Rows = dict[str, dict[str, str]]


def rows_of(table: bytes) -> Rows:
    """Of a CSV table, by their keys."""
    return {row["key"]: row for row in csv.DictReader(io.StringIO(table.decode()))}


def only_gaps(here: Rows, there: Rows) -> bool:
    """Whether every number of the rows that are done is that of `there`, or is not there."""
    return all(
        value == there.get(key, {}).get(name) or not is_number(value)
        for key, row in here.items()
        if row["status"] == "done"
        for name, value in row.items()
    )


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
