"""Rows of trials side by side at the same FLOPs: scores, and differences sample by sample to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reports.text.wording import NO_DATA, percent
from suite.analyse.bench import UNREDUCED, Measured, outcomes
from suite.analyse.seed_interval import Estimate, estimate, estimate_share, format_estimate, format_seed_range, record

METHOD, NOTHING = "dtem", "–"
PERCENT, DECIMALS = 100, 1
LEGEND = (
    "Top-1 and differences: mean over seeds [95 % interval over the samples: of one seed's top-1 Wilson's, else "
    "the jackknife's, paired for differences]; seeds: from the least to the largest of what they gave."
)


@dataclass(frozen=True)
class Row:
    """One method, trained or not. seeds: what each seed came to, by FLOPs target. about: further columns."""

    label: str
    seeds: Sequence[Mapping[str, Measured]]
    about: Mapping[str, Any] = field(default_factory=dict)

    def at(self, target: str) -> list[Measured | None]:
        return [cells.get(target) for cells in self.seeds]


@dataclass(frozen=True)
class Entry:
    """A row at a target. difference: to the reference, None for the reference itself and where either is lacking."""

    target: str
    row: Row
    cell: Measured | None
    top1: Estimate | None
    difference: Estimate | None

    @property
    def record(self) -> dict[str, Any]:
        cell = self.cell
        return {
            "target": self.target, "row": self.row.label, **self.row.about, "rate": cell.rate if cell else None,
            "reduction": cell.reduction if cell else None, "gmacs": cell.gmacs if cell else None,
            "seeds": len(self.row.seeds), **record("top1", self.top1), **record("difference", self.difference),
        }  # fmt: skip

    def line(self, further: Sequence[str], several: bool, reference: Row) -> list[str]:
        cell = self.cell
        rate = NO_DATA if cell is None else cell.rate or NOTHING
        cost = NO_DATA if cell is None else percent(cell.reduction, signed=True)
        scores = [
            format_estimate(self.top1, DECIMALS, PERCENT),
            format_estimate(self.difference, DECIMALS, PERCENT, signed=True),
        ]
        seeds = [
            format_seed_range(self.top1, DECIMALS, PERCENT),
            format_seed_range(self.difference, DECIMALS, PERCENT, signed=True),
        ]
        if self.row is reference or self.target == UNREDUCED:
            scores[1] = seeds[1] = NOTHING
        if len(self.row.seeds) == 1:
            seeds = [NOTHING, NOTHING]
        numbers = [scores[0], seeds[0], scores[1], seeds[1]] if several else scores
        own = [str(self.row.about.get(name, NOTHING)) for name in further]
        return [self.target or NOTHING, self.row.label, *own, rate, cost, *numbers]


@dataclass(frozen=True)
class Comparison:
    """entries: the unreduced model, then every row at every target, target by target."""

    entries: list[Entry]
    reference: Row

    @property
    def _several(self) -> bool:
        return any(len(entry.row.seeds) > 1 for entry in self.entries)

    @property
    def _further(self) -> list[str]:
        return list(dict.fromkeys(name for entry in self.entries for name in entry.row.about))

    @property
    def headers(self) -> tuple[str, ...]:
        scores = ("Top-1 (%)", "seeds", "Difference", "seeds") if self._several else ("Top-1 (%)", "Difference")
        return ("Target", "Method", *self._further, "Rate", "FLOPs (%)", *scores)

    @property
    def lines(self) -> list[list[str]]:
        return [entry.line(self._further, self._several, self.reference) for entry in self.entries]

    @property
    def records(self) -> list[dict[str, Any]]:
        empty = dict.fromkeys(self._further)
        return [{"target": None, "row": None, **empty, **entry.record} for entry in self.entries]

    @property
    def curves(self) -> dict[str, list[tuple[float, Estimate | None]]]:
        """Label -> (change of FLOPs in %, score) of the rows at the targets."""
        curves: dict[str, list[tuple[float, Estimate | None]]] = {}
        for entry in self.entries:
            if entry.cell and entry.target != UNREDUCED:
                curves.setdefault(entry.row.label, []).append((PERCENT * entry.cell.reduction, entry.top1))
        return curves


def compared(unreduced: Row, rows: Sequence[Row], reference: Row, targets: Sequence[str]) -> Comparison:
    """Every row at every target, and its difference to `reference`. Rows have one seed, or all the same ones."""
    entries = [make_entry(unreduced, UNREDUCED, reference)]
    entries += [make_entry(row, target, reference) for target in targets for row in rows]
    return Comparison(entries, reference)


def make_entry(row: Row, target: str, reference: Row) -> Entry:
    """Differences are taken sample by sample and seed by seed."""
    cells, own, other = row.at(target), outcomes(row.at(target)), outcomes(reference.at(target))
    top1 = None if own is None else estimate_share(own)
    difference = None if row is reference or own is None or other is None else estimate(own - other)
    return Entry(target, row, cells[0], top1, difference)
