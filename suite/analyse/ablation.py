"""What soft merging and the embedding add to training through hard merges (the paper's Table 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from suite.analyse.bench import UNREDUCED, Bench, check_settings
from suite.analyse.comparison import LEGEND, METHOD, Row, compared
from suite.analyse.figures import draw_against_flops
from suite.analyse.sheet import Sheet
from suite.sweep.methods import NO_WEIGHTS
from suite.train.recipe import Recipe, make_recipe
from suite.train.settings import recipe_settings

FINE_TUNED = "tome"


@dataclass(frozen=True)
class Stage:
    """One row of the ablation: what is trained, and what of DTEM is in it."""

    name: str
    label: str
    method: str
    options: Mapping[str, Any]


STAGES = (
    Stage("none", "hard, by keys", FINE_TUNED, {}),
    Stage("keys", "soft, by keys", METHOD, {"metric": "keys"}),
    Stage("embedding", "soft, by embedding", METHOD, {}),
)


def ablate(bench: Bench, settings: Mapping[str, Any], seeds: Sequence[int]) -> Sheet:
    """Train every stage with every seed on the same budget, and measure all at the same FLOPs.

    settings: of DTEM's recipe, for all three. RequestError for what cannot be done.
    """
    bench.check()
    check_settings(settings)
    budget = common_settings(bench.task, settings)
    files = {
        (stage.name, seed): bench.train(f"{stage.name}-seed-{seed}", stage.method, settings_of(stage, budget, seed))
        for seed in seeds
        for stage in STAGES
    }
    free = bench.measure(FINE_TUNED, [NO_WEIGHTS])
    rows = [Row("ToMe as it comes", [free.get(NO_WEIGHTS, {})])]
    for stage in STAGES:
        sources = [str(files[stage.name, seed]) for seed in seeds]
        found = bench.measure(stage.method, sources, stage.options)
        rows.append(Row(stage.label, [found.get(source, {}) for source in sources]))
    reference = rows[1]
    result = compared(Row("unreduced", [free.get(UNREDUCED, {})]), rows, reference, bench.targets)
    updates = "epochs" if budget["steps"] is None else "steps"
    about = {
        "analysis": "ablation", "task": bench.task, "model": bench.model, "seeds": list(seeds), "settings": budget,
        "train_limit": bench.train_limit,
    }  # fmt: skip
    title = f"{bench.task} · {bench.model} · {budget[updates]} {updates.replace('steps', 'updates')}, end to end"
    notes = (
        *bench.remarks,
        f"{LEGEND} Difference: to '{reference.label}' on the same samples.",
        f"All three are trained end to end at {budget['rate']} with the same data, updates, learning rates and seeds "
        f"({', '.join(map(str, seeds))}). With soft merging, one update in {budget['soft_every']} is made through the "
        "relaxation: with keys it teaches the backbone, with the embedding the embedding alone.",
    )
    return Sheet(
        "ablation", f"Ablation: {title}", about, result.records, result.headers, result.lines, notes,
        partial(draw_against_flops, result.curves, title, "Top-1 (%)"), bench.failed, names=2,
    )  # fmt: skip


def common_settings(task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """One budget for all. No learning rates of end-to-end training were published: the embedding learns at that of
    DTEM's modular training, the backbone, as much of it as is fine-tuned, at that of fine-tuning."""
    modular, fine = (make_recipe(name, **recipe_settings(task, name)) for name in (METHOD, FINE_TUNED))
    both = {"end_to_end": True, "backbone": fine.backbone, "backbone_lr": fine.lr / modular.lr}
    made = make_recipe(METHOD, **{**recipe_settings(task, METHOD), **both, **settings})
    return made.model_dump(mode="json", exclude={"seed", "reducer_options"})


def settings_of(stage: Stage, budget: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The budget as far as the stage's recipe knows it."""
    known = budget if stage.method == METHOD else {name: budget[name] for name in Recipe.model_fields if name in budget}
    return {**known, "seed": seed, "reducer_options": dict(stage.options)}
