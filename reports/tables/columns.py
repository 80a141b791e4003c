"""The columns of a run's table that people see, and what a narrow terminal goes without."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from reports.frame import AGREEMENT
from reports.groups import shown_of
from reports.speeds import INTERVAL
from reports.text.headings import AT_CHANCE, DISPUTED, DOMINATED, REMARK, UNCOUNTED, is_at_chance
from reports.text.wording import (
    NO_DATA,
    gflops,
    is_untrained,
    known,
    method_label,
    percent,
    rate_label,
    ratio,
    score,
    short_names,
    shorten,
    significant,
    speed,
    spread,
    training_mark,
    whole,
)
from suite.contract.metric import Cost, Metric

REASON_WIDTH = 60
AGAINST_FASTEST = "Against the fastest"
SEEDS, ORACLE = "Over seeds", "Oracle"


@dataclass(frozen=True)
class Column:
    """One column for people: its header, and what it shows of a row (a namedtuple of the frame's columns)."""

    header: str
    show: Callable[[Any], str]
    numeric: bool = True
    names: bool = False  # with the others that do, tells a row from all others


def _of_metric(row: Any, metric: Metric, interval: bool) -> str:
    value, low, high = (getattr(row, metric.name + end) for end in INTERVAL)
    return score(value, low, high, interval, metric.scale, metric.decimals, metric.largest)


def _headline(row: Any, metric: Metric) -> str:
    """What the row's cell came to; with random weights, the agreement."""
    if row.status == "failed":
        return shorten(f"failed: {row.reason}", REASON_WIDTH)
    if row.status == "running":
        return f"running: {row.samples} of {row.expected}"
    if row.weights_kind == "random":
        return _of_metric(row, AGREEMENT, interval=True)
    dominated = any(known(floor) and floor for floor in (row.dominated_flops, row.dominated_time))
    marks = (AT_CHANCE if is_at_chance(row, metric) else "") + (DOMINATED if dominated else "")
    return _of_metric(row, metric, interval=True) + marks


def _gflops(row: Any) -> str:
    disputed = DISPUTED if known(row.disputed) and row.disputed else ""
    uncounted = UNCOUNTED if known(row.uncounted) and row.uncounted else ""
    return gflops(row.gmacs) + disputed + uncounted


def _marked(name: str, row: Any) -> str:
    return method_label(name, row.options, training_mark(row.training))


def reducer_column(frame: pd.DataFrame, label: Callable[[str, Any], str] = _marked) -> Column:
    """The method with its options and training; of a file, with no more folders than tell it from the others."""
    short = short_names(frame.reducer)
    return Column("Reducer", lambda row: label(short[row.reducer], row), numeric=False, names=True)


def _gflops_spread(row: Any) -> str:
    return spread(_gflops(row), gflops(row.gmacs_p5), gflops(row.gmacs_p95))


def _speed(row: Any) -> str:
    return speed(row.im_s, row.im_s_low, row.im_s_high) + (REMARK if row.speed_note else "")


def _rate(row: Any) -> str:
    """The rate as it was run, or as asked where nothing came of it."""
    return next((rate for rate in (row.resolved_rate, row.rate) if known(rate) and rate), "–")


RATE = Column("Rate", lambda row: rate_label(row.rate, row.resolved_rate), numeric=False, names=True)
IMAGES = Column("Images", lambda row: f"{row.samples} of {row.expected}")
GFLOPS, IM_S = Column("GFLOPs", _gflops_spread), Column("im/s", _speed)
FLOPS = (
    Column("FLOPs (%)", lambda row: percent(row.reduction, signed=True)),
    Column("Overhead (%)", lambda row: percent(row.overhead_gmacs / row.gmacs, 2)),
)
LEFT = (
    Column("Tokens left", lambda row: spread(whole(row.tokens_left), whole(row.tokens_p5), whole(row.tokens_p95))),
    Column("Memory (MiB)", lambda row: whole(row.peak_memory_mib)),
)
TRACED = (
    Column("Launches", lambda row: whole(row.launches)),
    Column("MB/image", lambda row: significant(row.moved_mb, 3)),
    Column("Host reads", lambda row: whole(row.host_reads)),
)


def columns_for(frame: pd.DataFrame, traced: bool = True) -> list[Column]:
    """The columns that people see: 'Images' only where some are missing, those of traces only where there is one.

    traced: False leaves the latter out, for want of room.
    """
    shown, random = shown_of(frame), set(frame.weights_kind == "random")
    first, *others = (metric for metric in shown.metrics if not metric.hidden)
    headers = {(False,): first.label, (True,): AGREEMENT.label}
    header = headers.get(tuple(random), f"{first.label} or {AGREEMENT.label.lower()}")
    images = [IMAGES] if frame.missing.any() else []
    # with random weights, the other scores mean nothing either
    scores = [] if random == {True} else [_metric_column(metric) for metric in others]
    headline = AGREEMENT if random == {True} else first
    scores = [*_beside_headline(frame, headline), *scores]
    whole = [_throughput_column(shown.throughput)] if shown.throughput else []
    whole += [_first_column(shown.first)] if shown.first else []
    costs = [_cost_column(cost) for cost in shown.costs]
    leading = Column(header, lambda row: _headline(row, first))
    cost, pace = (_of_part(one, shown.part) if whole else one for one in (GFLOPS, IM_S))
    speeds = [pace, *whole, _speedup_column(bool(whole)), *_against_fastest(frame)]
    traces = TRACED if traced and frame.launches.notna().any() else ()
    return [reducer_column(frame), RATE, leading, *images, *scores, cost, *FLOPS, *speeds, *LEFT, *costs, *traces]


def _of_part(column: Column, part: str) -> Column:
    return replace(column, header=f"{part.capitalize()} {column.header}")


def _beside_headline(frame: pd.DataFrame, metric: Metric) -> list[Column]:
    """What other seeds came to, and what the best rate for every image would, where that is known."""

    def seeds(row: Any) -> str:
        values = row.seeds_mean, row.seeds_low, row.seeds_high
        said = score(*values, True, metric.scale, metric.decimals, metric.largest)
        return f"{said} ({row.seeds:.0f})" if known(row.seeds) else NO_DATA

    def oracle(row: Any) -> str:
        said = score(row.oracle, math.nan, math.nan, False, metric.scale, metric.decimals)
        return f"{said} at {gflops(row.oracle_gmacs)} G" if known(row.oracle) else NO_DATA

    found = [Column(SEEDS, seeds)] if frame.seeds.notna().any() else []
    return [*found, *([Column(ORACLE, oracle)] if frame.oracle.notna().any() else [])]


def _metric_column(metric: Metric) -> Column:
    return Column(metric.label, lambda row: _of_metric(row, metric, interval=False))


def _cost_column(cost: Cost) -> Column:
    return Column(cost.label, lambda row: gflops(getattr(row, f"{cost.name}_gmacs")))


def _throughput_column(name: str) -> Column:
    def show(row: Any) -> str:
        return speed(row.whole_s, row.whole_s_low, row.whole_s_high) + (REMARK if row.whole_note else "")

    return Column(name, show)


def _first_column(name: str) -> Column:
    return Column(name, lambda row: significant(row.whole_first_s, 3))


def _speedup_column(whole: bool, interval: bool = True) -> Column:
    """Of the whole model, or of the backbone where there is no more to it."""
    name = "whole_speedup" if whole else "speedup"

    def show(row: Any) -> str:
        value, *bounds = (getattr(row, name + end) for end in INTERVAL)
        return ratio(value, *(bounds if interval else (math.nan, math.nan)))

    return Column("Speed-up", show)


def _against_fastest(frame: pd.DataFrame) -> list[Column]:
    """The speed-up over the unreduced model as it runs fastest, where that is not under the runtime of the table."""
    if not ((frame.fastest_runtime != frame.runtime) & frame.speedup_fastest.notna()).any():
        return []
    ends = [f"speedup_fastest{end}" for end in INTERVAL]
    return [Column(AGAINST_FASTEST, lambda row: ratio(*(getattr(row, end) for end in ends)))]


def _trained(row: Any) -> str:
    """'yes', 'no: embedding', the file of one of several trainings, or – where nothing is to be learned."""
    mark = training_mark(row.training)
    return {"": "–", "trained": "yes"}.get(mark, mark.removeprefix("trained: ").replace("untrained ", "no: "))


def _shortly_trained(row: Any) -> str:
    return "no" if is_untrained(row.training) else _trained(row)


TRAINED = Column("Trained", _trained, numeric=False, names=True)


def terminal_columns(frame: pd.DataFrame) -> list[Column]:
    """Those of every table, with the training in a column of its own, if any method has one."""
    method, *others = columns_for(frame)
    if not frame.training.astype(bool).any():
        return [method, *others]
    return [reducer_column(frame, lambda name, row: method_label(name, row.options)), TRAINED, *others]


def shorter(frame: pd.DataFrame) -> list[tuple[str, str, Column | None]]:
    """What a narrow terminal goes without, in order: its name, the column, and what stands there instead."""
    shown = shown_of(frame)
    rest = [SEEDS, *(metric.label for metric in shown.metrics[1:] if not metric.hidden), ORACLE]
    own = [
        *(column.header for column in TRACED[::-1]),
        "Memory (MiB)",
        *(cost.label for cost in shown.costs[::-1]),
        "Tokens left",
        "Overhead (%)",
        *rest[::-1],
    ]
    if shown.throughput:
        own += [*filter(None, [shown.first]), _of_part(IM_S, shown.part).header]
    cost = (_of_part(GFLOPS, shown.part) if shown.throughput else GFLOPS).header
    return [
        *((name, name, None) for name in own),
        ("Speed-up interval", "Speed-up", _speedup_column(bool(shown.throughput), interval=False)),
        ("GFLOPs interval", cost, replace(GFLOPS, header=cost, show=_gflops)),
        ("what untrained ones lack", "Trained", replace(TRAINED, show=_shortly_trained)),
        ("rate as asked", "Rate", replace(RATE, show=_rate)),
        (cost, cost, None),
        *((name, name, None) for name in (shown.throughput or IM_S.header, "Speed-up")),
    ]
