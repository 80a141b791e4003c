"""How much data and how many updates modular DTEM needs to gain on training-free merging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

from suite.analyse.bench import UNREDUCED, Bench, check_settings
from suite.analyse.comparison import LEGEND, METHOD, Entry, Row, compared
from suite.analyse.figures import draw_growth
from suite.analyse.seed_interval import Estimate
from suite.analyse.sheet import Sheet
from suite.errors import RequestError
from suite.sweep.methods import NO_WEIGHTS
from suite.train.recipe import Recipe, make_recipe
from suite.train.settings import recipe_settings

FREE = "tome"


def grow(
    bench: Bench, settings: Mapping[str, Any], samples: Sequence[int], updates: Sequence[int], seeds: Sequence[int]
) -> Sheet:
    """Train on so many samples with so many updates, every number with every other, and measure all at the same FLOPs.

    settings: of DTEM's recipe, for all. RequestError for what cannot be done.
    """
    bench.check()
    check_settings(settings, {"steps": "use --updates", "epochs": "use --updates", "backbone": "it is frozen"})
    recipe = make_recipe(METHOD, **{**recipe_settings(bench.task, METHOD), **settings})
    there = bench.training_samples()
    if max(samples) > there:
        raise RequestError(f"samples={max(samples)}: there are {there} to train on; ask for fewer")
    grid = list(product(samples, updates))
    files = {
        (count, steps, seed): bench.train(
            f"samples-{count}-updates-{steps}-seed-{seed}", METHOD, {**settings, "steps": steps, "seed": seed}, count
        )
        for count, steps in grid
        for seed in seeds
    }
    free = bench.measure(FREE, [NO_WEIGHTS])
    trained = bench.measure(METHOD, [NO_WEIGHTS, *map(str, files.values())])
    reference = Row("ToMe", [free.get(NO_WEIGHTS, {})])
    rows = [reference, Row("DTEM, untrained", [trained.get(NO_WEIGHTS, {})])]
    for count, steps in grid:
        cells = [trained.get(str(files[count, steps, seed]), {}) for seed in seeds]
        rows.append(Row("DTEM", cells, {"samples": count, "updates": steps, "passes": passes(count, steps, recipe)}))
    result = compared(Row("unreduced", [free.get(UNREDUCED, {})]), rows, reference, bench.targets)
    about = {
        "analysis": "data", "task": bench.task, "model": bench.model, "seeds": list(seeds),
        "settings": recipe.model_dump(mode="json", exclude={"seed", "steps", "epochs"}),
    }  # fmt: skip
    title = f"{bench.task} · {bench.model} · modular, batches of {recipe.batch_size}"
    notes = (
        *bench.remarks,
        f"{LEGEND} Difference: to training-free ToMe, on the same samples.",
        f"Modular training at {recipe.rate}: the backbone is frozen. Every row is a training of its own, whose rate of "
        "learning falls over its updates; passes: how often each sample is seen.",
    )
    return Sheet(
        "data", f"Training data and updates: {title}", about, result.records, result.headers, result.lines, notes,
        partial(draw_growth, grown(result.entries), title, "Top-1, difference to ToMe (points)"), bench.failed, names=2,
    )  # fmt: skip


def grown(entries: Sequence[Entry]) -> dict[str, dict[str, list[tuple[float, Estimate | None]]]]:
    """FLOPs target -> updates -> (samples, difference) of the trained ones."""
    parts: dict[str, dict[str, list[tuple[float, Estimate | None]]]] = {}
    for entry in entries:
        if about := entry.row.about:
            curves = parts.setdefault(entry.target, {})
            curves.setdefault(f"{about['updates']} updates", []).append((about["samples"], entry.difference))
    return parts


def passes(samples: int, updates: int, recipe: Recipe) -> float:
    """How often each sample is seen, to three digits."""
    return float(f"{updates * recipe.batch_size / samples:.3g}")
