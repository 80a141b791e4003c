"""What a run has come to so far, as a table. Apart from what makes scores: how they look decides no result."""

from __future__ import annotations

import math

from reports.tables.console import ConsoleTable, console_table, fields_of, terminal_width
from reports.text.wording import (
    NO_DATA,
    gflops,
    percent,
    reducer_label,
    score,
    short_origins,
    training_mark,
    training_of,
)
from suite.sweep.partial import Partial, PartialScore


def partial_table(partial: Partial) -> ConsoleTable | None:
    """None before there are scores."""
    if not (scores := partial.scores()):
        return None
    metric, origins = partial.metric, short_origins(of.source for of in scores)

    def line(of: PartialScore) -> list[str]:
        low, high = of.interval or (math.nan, math.nan)
        value = score(of.value, low, high, True, metric.scale, metric.decimals, metric.largest)
        cost = [NO_DATA, NO_DATA]
        if of.macs is not None:
            cost = [gflops(of.macs[0] / 1e9), percent(of.macs[0] / of.macs[1] - 1, signed=True)]
        training = training_of(of.learned, of.source, origins)
        name = reducer_label(of.reducer, of.options, training_mark(training, short=True))
        return [name, of.rate or "–", value, f"{of.samples} of {of.of}", *cost]

    headers = ("Reducer", "Rate", f"{metric.label} so far", "Samples", "GFLOPs", "FLOPs (%)")
    return console_table(fields_of(headers, [line(of) for of in scores], names=2, words=2), terminal_width())
