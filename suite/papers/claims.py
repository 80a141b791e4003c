"""What a method's own paper claims, what others have measured of it since, and what is measured here, side by side.

Rows are of the same model, trained or not alike, and at costs that are the same but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from suite.contract.baseline import BASELINE
from suite.errors import unknown
from suite.papers import paper_tables
from suite.papers.measured_table import GIGA, Found, count_lines, line_of, score_of
from suite.papers.table import MACS, TWO_PER_MAC, PaperTable, is_trained, method_of, named_model
from suite.sweep.progress import Progress

OWN_FILES = {"etps": "dtps", "nap": "nap_mat", "hynap": "nap_mat", "mat": "nap_mat", "zero_tprune": "zerotprune"}
"""Reducer -> the file of its own paper, where that has another name."""
APART = 0.03  # of the cost: printed to two digits, and with or without element-wise work, it is no more than that
SCORE = "top1"


@dataclass(frozen=True)
class Figure:
    """A printed row: its score in percent, cost in 10^9 multiply-accumulates, and where it stands."""

    model: str
    trained: bool
    gmacs: float
    score: float
    where: str
    claimed: bool


@dataclass(frozen=True)
class Claim:
    """Figures of one model at one cost. claimed: of the method's own paper or repository; others: of other papers, of
    leaderboards, and of the own paper where others quote it. here: scores measured, in percent."""

    model: str
    trained: bool
    gmacs: tuple[float, float]
    claimed: tuple[Figure, ...]
    others: tuple[Figure, ...]
    here: tuple[float, ...] = ()

    @property
    def spread(self) -> float:
        """Points from the lowest to the highest of all that is published; NaN of a single figure."""
        scores = [figure.score for figure in (*self.claimed, *self.others)]
        return max(scores) - min(scores) if len(scores) > 1 else math.nan


def claims_of(reducer: str, cells: Sequence[Found] = ()) -> list[Claim]:
    """Every model and cost of which top-1 of a method is published, in the order of models and falling costs.

    Options of the method that are not its defaults are other methods. A cost that is not printed is counted from
    shapes, where the rate is printed. cells: of stored runs. RequestError, with the nearest names, for a method of
    which nothing is published.
    """
    printed = [one for one in _printed() if one.reducer == reducer]
    if not printed:
        known = sorted({one.reducer for one in _printed()} - {BASELINE})
        raise unknown("method with published figures:", reducer, known)
    found: list[Claim] = []
    for figure in sorted(_figures(printed), key=lambda one: (one.model, one.trained, -one.gmacs, one.where)):
        last = found[-1] if found else None
        same = last and (last.model, last.trained) == (figure.model, figure.trained)
        if last is None or not same or last.gmacs[1] - figure.gmacs > APART * last.gmacs[1]:
            found.append(_claim([figure]))
        else:
            found[-1] = _claim([*last.claimed, *last.others, figure])
    return [_with_cells(claim, reducer, cells) for claim in found]


def _claim(figures: Sequence[Figure]) -> Claim:
    costs = [figure.gmacs for figure in figures]
    claimed, others = (tuple(one for one in figures if one.claimed == own) for own in (True, False))
    return Claim(figures[0].model, figures[0].trained, (min(costs), max(costs)), claimed, others)


@dataclass(frozen=True)
class _Printed:
    reducer: str
    model: str
    table: PaperTable
    row: Any


def _printed() -> list[_Printed]:
    """Every printed top-1 of a method on a model that is here."""
    found = []
    for table in paper_tables().values():
        for row in [] if table.absent else table.rows():
            method, _ = method_of(row.method)
            model = named_model(table, row)
            if isinstance(method, str) or method.options or model is None or model.startswith("!"):
                continue
            if row.task == "classification" and not math.isnan(row.top1):
                found.append(_Printed(method.reducer, model, table, row))
    return found


def _figures(printed: Sequence[_Printed]) -> Iterator[Figure]:
    lines = [line_of(one.table, one.row) for one in printed]
    lacking = [place for place, one in enumerate(printed) if math.isnan(one.row.gflops)]
    counted = count_lines([lines[place] for place in lacking], MACS, Progress(quiet=True))
    macs = {place: cost.macs for place, cost in zip(lacking, counted, strict=True) if cost.macs is not None}
    for place, one in enumerate(printed):
        cost, row = one.row.gflops / (2 if one.table.convention == TWO_PER_MAC else 1), one.row
        cost = macs[place] / GIGA if place in macs else cost
        if not math.isnan(cost):
            own = row.primary and row.file == OWN_FILES.get(one.reducer, one.reducer)
            yield Figure(one.model, is_trained(row), cost, row.top1, one.table.name, own)


def _with_cells(claim: Claim, reducer: str, cells: Sequence[Found]) -> Claim:
    low, high = claim.gmacs
    near = [
        cell
        for cell in cells
        if cell.row.task == "imagenet" and cell.row.reducer == reducer and not cell.row.options
        and cell.row.model.partition(".")[0] == claim.model.partition("@")[0].partition(".")[0]
        and low * (1 - APART / 2) <= cell.row.gmacs <= high * (1 + APART / 2)
    ]  # fmt: skip
    scores = [score for cell in near if (score := score_of(cell, SCORE)) and not (score.random or score.untrained)]
    here = tuple(score.value for score in scores if score.method_trained == claim.trained)
    return Claim(claim.model, claim.trained, claim.gmacs, claim.claimed, claim.others, here)
