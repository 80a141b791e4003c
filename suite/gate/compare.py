"""Two runs, baselines or cells side by side: what differs, and what could not have been seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from reports.text.wording import NO_DATA
from suite.errors import RequestError
from suite.gate.baseline import FOLDER
from suite.gate.pairing import Match, same_rate
from suite.gate.report import LEVEL, Report, adjusted, rows_of
from suite.gate.select import load_side
from suite.gate.side import Side, check_comparable
from suite.gate.verdict import Row


def compare(new: str, base: str, allowed: Collection[str] = (), alpha: float = LEVEL, folder: Path = FOLDER) -> Report:
    """NEW - BASE of every pair of cells, in every metric that both store, hidden ones too; it judges nothing.

    What `load_side` reads may be named.

    Raises:
        RequestError: a name is unknown, the sides cannot be compared, or no two cells belong together.
    """
    check_alpha(alpha)
    sides = load_side(new, folder), load_side(base, folder)
    remarks = check_comparable(*sides, allowed)
    matches, lonely = same_rate(*sides)
    rows = rows_of([_finished(match) for match in matches], *sides, alpha, every=True)
    check_common(*sides, rows)
    return Report(new, base, alpha, sides[0].shown, adjusted(rows), [*remarks, *lonely, *_unknown(sides[0], rows)])


def _unknown(side: Side, rows: Sequence[Row]) -> list[str]:
    """Why metrics are compared nowhere: they have no value, or no two cells have outcomes of them."""
    compared = {row.contrast.metric.name for row in rows if row.contrast}
    left = {metric.name: metric.label for metric in side.shown.metrics if metric.name not in compared}
    reasons = {name: why for row in rows for name, why in row.match.unscored.items() if name in left}
    said = [f"{left[name]} {NO_DATA}: {why}" for name, why in reasons.items()]
    labels = [label for name, label in left.items() if name not in reasons]
    if compared and labels:
        said.append(f"not compared, as no two cells have its outcomes: {', '.join(labels)}")
    return said


def check_alpha(alpha: float) -> None:
    if not 0.0001 <= alpha < 0.5:
        raise RequestError(f"--alpha {alpha}: the probability of a wrong verdict is 0.0001 to 0.5, such as 0.05")


def check_common(new: Side, base: Side, rows: Collection[Row]) -> None:
    """RequestError where finished cells have no sample in common."""
    if any(row.contrast for row in rows):
        return
    matches = [row.match for row in rows if not row.match.reason]
    pairs = [(match.new, match.base) for match in matches if match.new and match.base]
    if pairs and all(one.read().index.intersection(other.read().index).empty for one, other in pairs):
        raise RequestError(f"{new.name} and {base.name} have no sample in common; compare runs of the same data")


def _finished(match: Match) -> Match:
    for entry in (match.new, match.base):
        if entry is not None and entry.status != "done":
            return Match(
                match.new, match.base, reason=f"{entry.label} is {entry.status}: {entry.reason or 'not finished'}"
            )
    return match
