"""A frame as programs read it that take JSON."""

from __future__ import annotations

from typing import Any

import pandas as pd


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as programs read them: every column in full precision, None where there is no data."""
    columns = frame.astype(object)
    rows: list[dict[str, Any]] = columns.where(columns.notna(), None).to_dict("records")
    return rows
