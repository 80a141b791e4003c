"""The summary of curves: hypervolume, mean differences to a reference, ranks by FLOPs and by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reports.pareto.curves import Curve, Estimate, cost_change, curves_of, gain, reference_among, volume
from reports.pareto.layers import Layer
from reports.pareto.rank_change import RankChange, rank_change
from reports.pareto.resamples import RESAMPLES
from reports.tables.console import ConsoleTable, console_table, fields_of, spare
from reports.text.headings import title
from reports.text.markup import csv_text
from reports.text.wording import NO_DATA, gflops
from suite.contract.baseline import BASELINE
from suite.errors import unknown
from suite.store.files import write_text

DISPENSABLE = ("Rates", "GFLOPs", "Hypervolume")


@dataclass(frozen=True, eq=False)
class Found:
    """What a curve comes to. area: its hypervolume; more: its gain, cheaper: its change of cost over the reference,
    None of the reference itself; ranks: by FLOPs and by time, None if it cannot be ranked."""

    layer: Layer
    curve: Curve
    area: Estimate
    more: Estimate | None = None
    cheaper: Estimate | None = None
    ranks: tuple[Estimate, Estimate] | None = None

    @property
    def name(self) -> str:
        return self.layer.marked(self.curve.name)


@dataclass(frozen=True)
class CurveTable:
    """One line a curve. records: its numbers, None where there is no data; lines: the same for people."""

    title: str
    headers: tuple[str, ...]
    lines: list[list[str]]
    notes: list[str]
    records: list[dict[str, Any]]

    @property
    def markdown(self) -> str:
        rule = "|:---" + "|---:" * (len(self.headers) - 1) + "|"
        rows = [
            "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in (self.headers, *self.lines)
        ]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"### {self.title}", "", rows[0], rule, *rows[1:], "", *notes, ""])

    @property
    def csv(self) -> str:
        return csv_text(pd.DataFrame(self.records))

    def console(self, width: int) -> ConsoleTable:
        """For a terminal `width` characters wide; a narrow one has no room for everything, and says so."""
        fields = fields_of(self.headers, self.lines, words=1, whole=True)
        return console_table(
            fields,
            width,
            spare(DISPENSABLE),
            title=self.title,
            notes=self.notes,
            elsewhere=" (curves.md)",
            numbers=self.records,
        )


def curve_table(layers: Sequence[Layer], against: str | None = None, resamples: int = RESAMPLES) -> CurveTable:
    """What the curves of all layers come to, compared with the first curve of method `against` (default: tome's).

    Raises:
        RequestError: no curve is one of `against`, or cells of a run were scored on different samples.
    """
    by_layer = {layer: curves_of(layer.letter, layer.group, resamples) for layer in layers}
    curves = [(layer, curve) for layer, found in by_layer.items() for curve in found]
    reference = reference_among([curve for _, curve in curves], against)
    if against is not None and reference is None:
        raise unknown("reference", against, sorted({curve.key[0] for _, curve in curves}))
    least, limit = _budgets(layers, [curve for _, curve in curves])
    changes = {layer.letter: rank_change(found) for layer, found in by_layer.items()}
    found = [
        Found(layer, curve, volume(curve, least, limit), ranks=_ranks(curve, changes[layer.letter]))
        if reference is None or curve is reference
        else Found(
            layer, curve, volume(curve, least, limit), gain(curve, reference), cost_change(curve, reference),
            _ranks(curve, changes[layer.letter]),
        )
        for layer, curve in curves
    ]  # fmt: skip
    score = layers[0].group.headline.label.removesuffix(" (%)")
    headers = (
        "Method", "Rates", "GFLOPs", "Hypervolume", f"{score} at equal FLOPs", f"FLOPs at equal {score} (%)",
        *(("Rank by FLOPs", "by time") if any(changes.values()) else ()),
    )  # fmt: skip
    lines = [_line(row, ranked=len(headers) > 6) for row in found]
    records = [_record(row) for row in found]
    notes = _notes(layers, reference, score, least, limit, found, changes)
    several = len(layers) > 1
    head = f"{layers[0].group.task} · {len(layers)} runs" if several else title(layers[0].group)
    return CurveTable(f"Curves: {head}", headers, lines, notes, records)


def write_curve_table(table: CurveTable, folder: Path) -> list[Path]:
    """Write curves.md and curves.csv into `folder`, made if need be. Equal runs give equal bytes."""
    for kind, text in (("md", table.markdown), ("csv", table.csv)):
        write_text(folder / f"curves.{kind}", text)
    return [folder / "curves.md", folder / "curves.csv"]


def _budgets(layers: Sequence[Layer], curves: list[Curve]) -> tuple[float, float]:
    """(what every method at several rates gets down to, the dearest unreduced model, else point), in GFLOPs."""
    frames = [layer.group.frame for layer in layers]
    full = [cost for frame in frames for cost in frame.gmacs[(frame.reducer == BASELINE) & (frame.status == "done")]]
    costs = [cost for curve in curves for cost in curve.cost]
    cheapest = [curve.cost[0] for curve in curves if len(curve.cost) > 1 and not curve.untrained] or costs
    return max(cheapest, default=float("nan")), max(
        [cost for cost in full if cost == cost] or costs, default=float("nan")
    )


def _ranks(curve: Curve, change: RankChange | None) -> tuple[Estimate, Estimate] | None:
    if change is None or curve not in change.curves:
        return None
    i = change.curves.index(curve)
    by_flops, by_time = (Estimate(r.place[i], r.best[i], r.worst[i]) for r in (change.flops, change.time))
    return by_flops, by_time


def _line(row: Found, ranked: bool) -> list[str]:
    curve = row.curve
    costs = dict.fromkeys((gflops(curve.cost[0]), gflops(curve.cost[-1])))
    shown = [
        row.name, str(len(curve.cost)), "–".join(costs), format_estimate(row.area),
        "reference" if row.more is None else format_estimate(row.more, signed=True),
        "reference" if row.cheaper is None else format_estimate(row.cheaper, scale=100, signed=True),
    ]  # fmt: skip
    if not ranked:
        return shown
    return shown + [_place(r) for r in row.ranks] if row.ranks else [*shown, NO_DATA, NO_DATA]


def _place(rank: Estimate) -> str:
    return f"{'' if rank.value is None else rank.value} [{rank.low}, {rank.high}]".strip()


def format_estimate(estimate: Estimate, scale: float = 1, signed: bool = False) -> str:
    """'+1.5 [+0.2, +2.7]', two decimals where half the interval is below 0.5; n/a where there is no number."""
    if estimate.value is None:
        return NO_DATA
    ends = () if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)
    decimals = 2 if ends and 0 < scale * (ends[1] - ends[0]) / 2 < 0.5 else 1
    plus = "+" if signed else ""

    def number(value: float) -> str:
        text = f"{scale * value:{plus}.{decimals}f}"
        return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "−")

    value = number(estimate.value)
    return f"{value} [{', '.join(map(number, ends))}]" if ends else value


def _record(row: Found) -> dict[str, Any]:
    curve, group = row.curve, row.layer.group
    reducer, options, training = curve.key
    parts = {"hypervolume": row.area, "gain": row.more, "cost_change": row.cheaper}
    record = {
        "run": row.layer.label, "task": group.task, "model": group.model, "score": group.headline.name,
        "reducer": reducer, "options": options, "training": training, "rates": len(curve.cost),
        "gflops_from": curve.cost[0], "gflops_to": curve.cost[-1],
    }  # fmt: skip
    for name, estimate in parts.items():
        record |= _parts(name, estimate or Estimate(reason="reference"))
        record |= {f"{name}_{end}": getattr(estimate, end, None) for end in ("start", "end")}
        record[f"{name}_reason"] = (estimate or Estimate(reason="reference")).reason
    for name, rank in zip(("rank_flops", "rank_time"), row.ranks or (Estimate(), Estimate())):
        record |= _parts(name, rank)
    return record


def _parts(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _notes(
    layers: Sequence[Layer], reference: Curve | None, score: str, least: float, limit: float, found: list[Found],
    changes: dict[str, RankChange | None],
) -> list[str]:  # fmt: skip
    notes = [f"{layer.letter}: {layer.label} · {title(layer.group)}." for layer in layers if layer.letter]
    notes += [
        "[95 % interval]: bootstrap over the samples, which all methods share; curves are straight lines between the "
        "rates that were measured, and nothing beyond.",
        f"Hypervolume: area up to the reference point ({gflops(limit)} GFLOPs, {score} 0) over the budgets that every "
        f"method at several rates can serve, divided by their width (from {gflops(least)}): the mean of the best "
        f"{score} that a budget buys.",
    ]
    if reference is not None:
        which = next(row.name for row in found if row.curve is reference)
        notes.append(
            f"At equal FLOPs, at equal {score}: mean difference to {which} over what both curves span (curves.csv), "
            "Bjøntegaard's averages; −10 % needs 10 % fewer FLOPs."
        )
    notes += _absent("Hypervolume", [(row, row.area) for row in found])
    notes += _absent(f"{score} at equal FLOPs", [(row, row.more) for row in found])
    notes += _absent(f"FLOPs at equal {score}", [(row, row.cheaper) for row in found])
    for layer in layers:
        if (change := changes[layer.letter]) is not None:
            notes += _rank_notes(change, layer, score)
    return notes


def _absent(what: str, estimates: list[tuple[Found, Estimate | None]]) -> list[str]:
    """Which curves have no such number, and why."""
    why: dict[str, list[str]] = {}
    for row, estimate in estimates:
        if estimate is not None and estimate.value is None:
            why.setdefault(estimate.reason, []).append(row.name)
    return [f"{what} is {NO_DATA}, {reason}: {', '.join(names)}." for reason, names in why.items()]


def _rank_notes(change: RankChange, layer: Layer, score: str) -> list[str]:
    group, name = layer.group, layer.marked
    whole = bool(group.shown.throughput)
    lows, highs = group.seen("aa_low", whole), group.seen("aa_high", whole)
    which = f" of {layer.letter}" if layer.letter else ""
    said_of = [
        f"Rank{which} by FLOPs and by measured time at equal {score} [places that the noise leaves open, with the "
        f"unreduced model against itself at {min(lows):.3f}–{max(highs):.3f}]: Kendall's tau {change.tau:.2f} over "
        f"{change.pairs} pairs, {change.undecided} of them undecided."
    ]
    ahead: dict[str, list[str]] = {}
    for one, two in change.turned:
        ahead.setdefault(name(one.name), []).append(name(two.name))
    said_of += [
        f"Beyond the noise, {one} is ahead of {', '.join(others)} by FLOPs and behind by time."
        for one, others in ahead.items()
    ]
    return said_of if ahead else [*said_of, f"No rank{which} changes beyond the noise."]
