"""What training brings: methods trained by their recipes beside others as they are, at the same FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from suite.analyse.bench import UNREDUCED, Bench, Measured, check_settings
from suite.analyse.comparison import LEGEND, Row, compared
from suite.analyse.figures import draw_against_flops
from suite.analyse.sheet import Sheet
from suite.errors import RequestError
from suite.sweep.methods import NO_WEIGHTS

TRAINED = "trained"


def compare_trained(
    bench: Bench, settings: Mapping[str, Any], methods: Sequence[str], free: Sequence[str], against: str,
    seeds: Sequence[int],
) -> Sheet:  # fmt: skip
    """Train every one of `methods` with every seed, and measure it and the `free` ones, untrained, at the same FLOPs.

    settings: of all recipes. against: what differences are taken to, 'NAME' for one of `free` or 'NAME trained'.
    RequestError for what cannot be done.
    """
    bench.check()
    check_settings(settings)
    known = [*free, *(f"{method} {TRAINED}" for method in methods)]
    if against not in known:
        raise RequestError(f"against={against!r} is none of what is compared; use {', '.join(known)}")
    files = {
        method: [bench.train(f"{method}-seed-{seed}", method, {**settings, "seed": seed}) for seed in seeds]
        for method in methods
    }
    unreduced: Mapping[str, Measured] = {}
    rows = []
    for method in free:
        cells = bench.measure(method, [NO_WEIGHTS])
        unreduced = unreduced or cells.get(UNREDUCED, {})
        rows.append(Row(method, [cells.get(NO_WEIGHTS, {})]))
    for method, weights in files.items():
        cells = bench.measure(method, list(map(str, weights)))
        unreduced = unreduced or cells.get(UNREDUCED, {})
        rows.append(Row(f"{method} {TRAINED}", [cells.get(str(file), {}) for file in weights]))
    reference = next(row for row in rows if row.label == against)
    result = compared(Row("unreduced", [unreduced]), rows, reference, bench.targets)
    title = f"{bench.task} · {bench.model} · {len(seeds)} trainings each"
    about = {
        "analysis": "trained", "task": bench.task, "model": bench.model, "seeds": list(seeds), "against": against,
        "settings": dict(settings),
    }  # fmt: skip
    notes = (*bench.remarks, f"{LEGEND} Difference: to {against}, on the same samples.")
    return Sheet(
        "trained", f"What training brings: {title}", about, result.records, result.headers, result.lines, notes,
        partial(draw_against_flops, result.curves, title, "Top-1 (%)"), bench.failed, names=2,
    )  # fmt: skip
