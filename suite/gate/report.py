"""What a comparison came to, ready to be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from suite.contract.metric import TaskReport
from suite.gate.contract import Contract
from suite.gate.outcomes import Paired, pair_up
from suite.gate.paired_difference import measure_difference
from suite.gate.pairing import Match
from suite.gate.side import Side
from suite.gate.speed_ratio import compare_speed, memory_change
from suite.gate.verdict import Row, margin_of
from suite.stats import holm

LEVEL = 0.05
UNMEASURED = "no metric that both have is stored sample by sample"


@dataclass(frozen=True)
class Report:
    """new, base: what was compared. verdict: of `check`, "" of `compare`. needed: samples that would decide.

    remarks: what a reader must know. skipped: why the contract tests were not run; "" if they were or had no place.
    """

    new: str
    base: str
    alpha: float
    shown: TaskReport
    rows: Sequence[Row]
    remarks: Sequence[str]
    margin: float | None = None
    verdict: str = ""
    needed: int | None = None
    contract: Contract | None = None
    skipped: str = ""

    @property
    def samples(self) -> list[int]:
        return sorted({row.contrast.samples for row in self.rows if row.contrast})


def rows_of(
    matches: Sequence[Match],
    new: Side,
    base: Side,
    alpha: float,
    points: float | None = None,
    every: bool = False,
    others: int = 0,
) -> list[Row]:
    """A row of every match in the task's first metric, or in `every` one that both sides have.

    points: the margin as people read the metric; None for the default. others: tests of the same family beside these.
    """
    first = new.shown.metrics[0].name
    same = new.identity.get("samples") == base.identity.get("samples")
    shown = new.shown if every else replace(new.shown, metrics=new.shown.metrics[:1])
    paired: list[tuple[Match, list[Paired]]] = []
    for match in matches:
        if match.reason or match.new is None or match.base is None:
            paired.append((match, []))
            continue
        found = pair_up(match.new.read(), match.base.read(), shown, same)
        paired.append((match, [one for one in found if one.metric.name not in match.unscored]))
    whole = bool(new.shown.throughput)
    rows, tests = [], others + sum(len(found) for _, found in paired)
    for match, found in paired:
        if not found or match.new is None or match.base is None:
            rows.append(Row(match, reason=match.reason or match.unscored.get(first, UNMEASURED)))
            continue
        ratio, memory = compare_speed(match.new, match.base, whole), memory_change(match.new, match.base)
        for one in found:
            seen = measure_difference(one, alpha, tests)
            rows.append(Row(match, seen, ratio, memory, margin_of(seen, points)))
    return rows


def adjusted(rows: Sequence[Row]) -> list[Row]:
    """With two-sided p-values, adjusted over all rows."""
    tested = {id(row): row.contrast.p for row in rows if row.contrast is not None}
    values = dict(zip(tested, holm(list(tested.values())).tolist()))
    return [replace(row, adjusted=values.get(id(row))) for row in rows]
