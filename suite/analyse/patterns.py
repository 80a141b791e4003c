"""Do two methods keep and group the same patches, and do methods that do score alike?

Source of the question: J. B. Haurum, S. Escalera, G. W. Taylor and T. B. Moeslund, "Which tokens to use? Investigating
token reduction in vision transformers", ICCV workshops 2023, who compare the sets that pruning keeps and the clusters
that merging makes, and take their similarity to stand for that of scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reports.frame import load_frame
from reports.text.wording import NO_DATA
from suite.analyse.pattern_figure import draw_patterns
from suite.analyse.sheet import Sheet
from suite.backbones import family_of
from suite.contract.baseline import BASELINE
from suite.contract.choice import evenly_spaced
from suite.contract.metric import Metric
from suite.errors import RequestError
from suite.pictures.token_maps import token_maps
from suite.rates.rate import rate_text
from suite.stats.partitions import alone, mantel, mutual_information, overlap
from suite.sweep.api import run_sweep
from suite.sweep.forecast import method_labels
from suite.sweep.images import load, sample_images
from suite.sweep.plan import Plan, make_plan
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec

SHARED = ("overlap", "normalised", "adjusted")
"""Of a pair: intersection over union of the patches that stand alone, normalised and adjusted mutual information of the
groups."""


@dataclass
class Pattern:
    """A cell, with what it does to images. owners: (B, P) after each block (see `TokenMaps`). score: NaN: unknown."""

    label: str
    model: str
    score: float
    owners: list[np.ndarray] = field(default_factory=list)


def compare_patterns(
    values: Mapping[str, Any], models: Sequence[str], images: int, out: Path, progress: Progress
) -> Sheet:
    """Run the cells of a request, of one or more models, and compare what they do to the same images, pair by pair.

    values: keys of a `RunSpec`; its model, out and speed are decided here. images: on which groups are compared. out:
    holds a run per model, and what is stored there is not run again. RequestError for what cannot be run, for models
    with other grids of patches, and if there are fewer than two cells to compare.
    """
    patterns: list[Pattern] = []
    notes: list[str] = []
    failed: list[str] = []
    for model in models:
        request = {**values, "model": model, "speed": False, "out": str(out / model.replace("/", "_"))}
        results = run_sweep(request, progress=progress)
        failed += results.failed
        plan = make_plan(make_spec(request))
        metric: Metric = plan.task.shown.metrics[0]
        found, why = patterns_of(plan, metric, images, progress, named=len(models) > 1)
        patterns, notes = [*patterns, *found], [*notes, *why]
    if len(patterns) < 2:
        raise RequestError(f"{len(patterns)} methods form groups of patches; name two or more, or more rates")
    shapes = {pattern.label: [side.shape for side in pattern.owners][-1] for pattern in patterns}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{label} {shape[1]}" for label, shape in shapes.items())
        raise RequestError(f"the models cut images into other numbers of patches: {listed}; name models of one grid")
    return _sheet(values, models, patterns, images, metric, tuple(dict.fromkeys(notes)), failed, progress)


def patterns_of(
    plan: Plan, metric: Metric, images: int, progress: Progress, named: bool
) -> tuple[list[Pattern], list[str]]:
    """The reduced cells of a plan with the groups that they make, and why others have none."""
    frame, labels = load_frame(plan.spec.out), method_labels(plan.methods)
    patches = family_of(plan.backbone).layout(plan.backbone).num_patches
    plan.model.to(plan.device)
    chosen = evenly_spaced(plan.task.samples, images)
    batches = [chosen[i : i + plan.spec.batch_size] for i in range(0, len(chosen), plan.spec.batch_size)]
    read = [batch for _, batch in load(plan, batches, range(len(batches)))]
    found, why = [], []
    for key, method in progress.steps(
        "grouping patches", list(plan.methods.items()), name=lambda item: labels[item[0]]
    ):
        if method.reducer == BASELINE or frame.status.get(key) != "done":
            continue
        label = f"{labels[key]} {rate_text(method.rate)}".strip()
        handle = plan.handle(method, plan.rate_of(key, lambda: sample_images(plan, 1)))
        pattern = Pattern(
            f"{plan.spec.model} {label}" if named else label, plan.spec.model, frame.loc[key, metric.name]
        )
        try:
            with handle, torch.inference_mode():
                maps = [token_maps(handle, batch.images.to(plan.device)).owners for batch in read]
        except RequestError as error:
            why.append(f"{pattern.label} is left out: {error}.")
            continue
        finally:
            handle.forget()
        if maps[0][-1].shape[1] != patches:
            why.append(f"{pattern.label} is left out: its patches are not those of the image as it is.")
            continue
        pattern.owners = [np.concatenate(blocks) for blocks in zip(*maps, strict=True)]
        found.append(pattern)
    return found, why


def compare_pair(one: Pattern, two: Pattern) -> list[dict[str, float]]:
    """For every block of the shallower model: the means over images of SHARED. NaN where neither reduces yet."""
    return [_shared(*blocks) for blocks in zip(one.owners, two.owners)]


def _shared(one: np.ndarray, two: np.ndarray) -> dict[str, float]:
    sets = [alone(side) for side in (one, two)]
    if all(bool(side.all()) for side in sets):
        return dict.fromkeys(SHARED, float("nan"))
    information = np.array([mutual_information(*sides) for sides in zip(one, two, strict=True)])
    parts = (overlap(*sets), *information.T)
    means = [float(np.nanmean(part)) if np.isfinite(part).any() else float("nan") for part in parts]
    return dict(zip(SHARED, means, strict=True))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _sheet(
    values: Mapping[str, Any], models: Sequence[str], patterns: Sequence[Pattern], images: int, metric: Metric,
    left_out: tuple[str, ...], failed: list[str], progress: Progress,
) -> Sheet:  # fmt: skip
    labels, scores = [pattern.label for pattern in patterns], np.array([pattern.score for pattern in patterns])
    matrices = {name: np.eye(len(patterns)) for name in SHARED}
    records: list[dict[str, Any]] = []
    for i, j in progress.steps("comparing groups", list(combinations(range(len(patterns)), 2)), name=lambda pair: ""):
        blocks = compare_pair(patterns[i], patterns[j])
        means = {name: _mean([block[name] for block in blocks]) for name in SHARED}
        for name in SHARED:
            matrices[name][i, j] = matrices[name][j, i] = means[name]
        apart = abs(scores[i] - scores[j])
        for place, block in [("all", means), *((str(n + 1), block) for n, block in enumerate(blocks))]:
            records.append({"one": labels[i], "two": labels[j], "block": place, "apart": _known(apart)} | {
                name: _known(value) for name, value in block.items()
            })  # fmt: skip
    known = ~np.isnan(scores)
    tests = {name: mantel(matrix[np.ix_(known, known)], scores[known]) for name, matrix in matrices.items()}
    said = [f"{name} {_number(rho)} (p = {_number(p, 3)})" for name, (rho, p) in tests.items()]
    notes = (
        f"On {images} images, mean over the blocks in which one of a pair has reduced. Alone: intersection over union "
        "of the patches that stand for themselves alone, which is the kept set of methods that prune. Groups: mutual "
        "information of the groups, adjusted for chance (0: as groups of these sizes drawn at random; dropped patches "
        "are one group).",
        f"Spearman's correlation with the difference in {metric.label} over all pairs, tested by dealing scores anew "
        f"among methods (Mantel): {', '.join(said)}.",
        *left_out,
    )
    title = f"Patterns: {values.get('task', 'scenes')} · {' + '.join(models)} · n = {images}"
    about = {
        "analysis": "patterns", "task": values.get("task", "scenes"), "models": list(models), "metric": metric.name,
        "images": images, "cells": labels, "scores": [_known(score) for score in scores],
        "correlation": {name: {"spearman": _known(rho), "p": _known(p)} for name, (rho, p) in tests.items()},
    }  # fmt: skip
    headers = ("Method", metric.label, "Groups most like", "Adjusted", "Alone most like", "IoU")
    lines = [
        [label, _number(metric.scale * score, metric.decimals), *_nearest(labels, matrices["adjusted"], i),
         *_nearest(labels, matrices["overlap"], i)]
        for i, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]  # fmt: skip
    draw = partial(draw_patterns, labels, matrices, metric.scale * scores, tests, title, metric.label)
    return Sheet("patterns", title, about, records, headers, lines, notes, draw, failed)


def _nearest(labels: Sequence[str], matrix: np.ndarray, own: int) -> list[str]:
    row = np.where(np.arange(len(labels)) == own, np.nan, matrix[own])
    if np.isnan(row).all():
        return [NO_DATA, NO_DATA]
    place = int(np.nanargmax(row))
    return [labels[place], _number(row[place])]


def _number(value: float, decimals: int = 2) -> str:
    return NO_DATA if np.isnan(value) else f"{value:.{decimals}f}"


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
