"""The rule by which a new method passes.

A row is one cell of BASE and the cell of NEW that it is compared with; d = NEW - BASE in the task's first metric.

- A row passes if NEW is not inferior: the one-sided 1 - alpha bound of d lies above -margin.
- A row regressed if NEW is significantly worse, by a test whose p-values are adjusted over the rows (Holm), and d lies
  beyond the margin; also where NEW failed or broke the contract.
- A row is disputed if the counters of FLOPs differ on either side: nobody can say then what the same cost is, so that
  it neither passes nor regresses.
- Of any other row nothing can be said yet, and how many samples would say it is computed. So it is of a score's row
  whose samples are too thin: where few differ, it passes only if the worst that they leave possible is within the
  margin.

NEW passes if every row does. That needs no adjustment: the chance that a NEW passes which is worse by the margin
anywhere is at most alpha (intersection-union). NEW regressed if any row did: the chance that this happens to a NEW that
is equal everywhere is at most alpha, as the tests are exact. Where there are several looks (`suite.gate.looks`), alpha
is the level of a look, and the levels add up to the one that was asked for. Speed never decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from suite.errors import UNREACHED
from suite.gate.paired_difference import PairedDifference
from suite.gate.pairing import Match
from suite.gate.speed_ratio import SpeedRatio
from suite.stats import holm

PASSED, REGRESSED, CANNOT_TELL, DISPUTED = "pass", "regressed", "cannot tell", "disputed"
EXIT = {PASSED: 0, REGRESSED: 3, CANNOT_TELL: 4, DISPUTED: 5}
WORST_FIRST = (REGRESSED, DISPUTED, CANNOT_TELL, PASSED)
MARGIN, SHARE_OF_BASE = 0.005, 0.01
"""Default margins: 0.5 points of top-1; 1 % of BASE's own score for others, whose ranges differ."""


@dataclass(frozen=True)
class Row:
    """One comparison. reason: one sentence; needed: samples that would decide, None where no number is known, with
    probability `power`, if things are as they seem; None where that is not known exactly but about four of five.
    """

    match: Match
    contrast: PairedDifference | None = None
    pace: SpeedRatio = field(default_factory=SpeedRatio)
    memory: float | None = None
    margin: float = 0.0
    adjusted: float | None = None
    verdict: str = CANNOT_TELL
    reason: str = ""
    needed: int | None = None
    power: float | None = None


def margin_of(found: PairedDifference, points: float | None) -> float:
    """The margin in the unit of what is stored; points: as the user gave it, None for the default."""
    if points is not None:
        return points / found.metric.scale
    return MARGIN if found.wins is not None else SHARE_OF_BASE * found.base


def judge(rows: Sequence[Row], alpha: float, settled: int = 0) -> list[Row]:
    """The rows with their adjusted p-values and verdicts.

    settled: rows of the same family of which the verdict is known; they are not tested, and count as if p were 1.
    """
    tested = {
        id(row): row.contrast.worse
        for row in rows
        if row.contrast is not None and not row.match.cheaper and not row.match.disputed
    }
    adjusted = dict(zip(tested, holm([*tested.values(), *[1.0] * settled]).tolist()))
    return [_judged(replace(row, adjusted=adjusted.get(id(row))), alpha) for row in rows]


def _judged(row: Row, alpha: float) -> Row:
    found = row.contrast
    if found is None:
        reason = row.reason or row.match.reason
        return replace(row, verdict=REGRESSED, reason=f"NEW failed: {reason}") if _broke(row) \
            else replace(row, reason=reason)  # fmt: skip
    if row.match.disputed:
        return replace(row, verdict=DISPUTED, reason=row.match.disputed)
    if found.bound > -row.margin:
        said = f"not worse by {_points(found, row.margin)} or more"
        return replace(row, verdict=PASSED, reason=said + (", at less cost" if row.match.cheaper else ""))
    if row.match.cheaper:
        return replace(row, reason="NEW costs less here and is not as good: no cell of NEW at this cost")
    if row.margin == 0:
        return replace(row, reason="BASE scores nothing, so that no share of it is a margin; name one with --margin")
    if found.thin:
        return replace(row, reason=found.thin)
    if row.adjusted is not None and row.adjusted <= alpha and found.gain < -row.margin:
        label = found.metric.label.removesuffix(" (%)")
        moved = f"{'rose' if found.metric.lower_is_better else 'fell'} by {_points(found, -found.gain)}"
        said = f"{label} {moved}, from {_score(found, found.base)} to "
        return replace(row, verdict=REGRESSED, reason=f"{said}{_score(found, found.new)}")
    if found.gain <= -row.margin:
        return replace(row, reason=f"seems worse by {_points(found, -found.gain)}, which may be chance")
    return replace(row, reason=f"may be worse by {_points(found, row.margin)} or more")


def _broke(row: Row) -> bool:
    """NEW failed, and not only because it cannot be as cheap as it was asked to be."""
    new = row.match.new
    return new is not None and new.status == "failed" and UNREACHED not in new.reason


def planned(rows: Sequence[Row], alpha: float) -> list[Row]:
    """The rows of `judge`; those of which nothing can be said with the samples that would decide them."""
    family = sum(row.adjusted is not None for row in rows)
    return [_planned(row, alpha, family) if _open(row) else row for row in rows]


def _open(row: Row) -> bool:
    return row.verdict == CANNOT_TELL and row.contrast is not None and not row.match.cheaper


def _planned(row: Row, alpha: float, family: int) -> Row:
    """If things are as they seem: to show a loss beyond the margin, at the strictest level that Holm may ask for, or
    else to show that there is none.
    """
    found, strict = row.contrast, alpha / family
    if found is None:
        return row
    lost = found.gain <= -row.margin
    needed = found.needed_to_find(strict, row.margin) if lost else found.needed_to_bound(row.margin, alpha)
    if needed is None:
        return row
    needed = max(needed, found.samples + 1)  # these do not decide, so no fewer do
    if lost:
        return replace(row, needed=needed, power=found.chance_to_find(needed, strict, row.margin))
    return replace(row, needed=needed, power=found.chance_to_bound(needed, row.margin, alpha))


def overall(rows: Sequence[Row]) -> str:
    return min((row.verdict for row in rows), key=WORST_FIRST.index, default=PASSED)


def samples_needed(rows: Sequence[Row]) -> int | None:
    """What would decide the row that needs most; None where there is none, or one that no number decides."""
    undecided = [row for row in rows if row.verdict == CANNOT_TELL]
    needed = [row.needed for row in undecided if row.needed is not None]
    return max(needed) if needed and len(needed) == len(undecided) else None


def _points(found: PairedDifference, value: float) -> str:
    return f"{found.metric.scale * value:.2f} points"


def _score(found: PairedDifference, value: float) -> str:
    return f"{found.metric.scale * value:.1f}"
