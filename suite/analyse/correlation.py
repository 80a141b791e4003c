"""Do keys and the decoupled embedding find the same tokens alike, before training and after? (the paper's Table 7)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from suite.analyse.figures import draw_correlation
from suite.analyse.kendall import correlations
from suite.analyse.seed_interval import Estimate, estimate, format_estimate, record
from suite.analyse.sheet import Sheet
from suite.attachment.handle import Handle
from suite.errors import RequestError
from suite.rates.rate import Rate
from suite.store.files import read_json, write_json
from suite.sweep.images import load, sample_images
from suite.sweep.methods import NO_WEIGHTS, MethodAtRate
from suite.sweep.plan import Plan, make_plan, resolve_device
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec

METHOD, GROUPS, DECIMALS = "dtem", 3, 3
BEFORE, RANDOM, AFTER, CHANGE = "untrained", "random maps", "trained", "change"


@dataclass(frozen=True)
class Variant:
    """An embedding to compare with keys. key: names its stored numbers. draw: a random map of its own; None: it has
    the weights of `method`, or the initial ones."""

    label: str
    key: str
    method: MethodAtRate
    draw: int | None = None

    def handle(self, plan: Plan, rate: Rate | None) -> Handle:
        handle = plan.handle(self.method, rate)
        if self.draw is not None:
            redraw(handle, self.draw)
        return handle


def redraw(handle: Handle, draw: int) -> None:
    """Other random values for every embedding, from the distribution of the initial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1000 + draw)  # the initial ones are seeded by their blocks
        for embedding in cast(Iterable[nn.Linear], handle.reducer.embeddings):
            embedding.load_state_dict(nn.Linear(embedding.in_features, embedding.out_features).state_dict())


def correlate(spec: RunSpec, weights: tuple[str, ...], rate: Rate, draws: int, out: Path, progress: Progress) -> Sheet:
    """Mean tau per block and per group of blocks, of the untrained embedding, of random ones and of `weights`.

    spec: task, data and model; what it says of reducers and rates is not read. weights: files, 'embedded', or 'none'
    for the untrained embedding alone. What is stored in `out` is not computed again. RequestError for what cannot be
    done, and for an image that cannot be read.
    """
    wanted = [f"{METHOD}@{source}" for source in dict.fromkeys((NO_WEIGHTS, *weights))]
    spec = spec.model_copy(update={"reducers": tuple(wanted), "rates": (rate,), "flops": ()})
    plan = make_plan(spec)
    variants, ran = variants_of(plan, draws), resolved(plan)
    taus = measured(plan, variants, ran, out / "tau", progress)
    return sheet_of(plan, str(ran), taus)


def variants_of(plan: Plan, draws: int) -> list[Variant]:
    asked = {key: method for key, method in plan.methods.items() if method.reducer == METHOD}
    untrained = next(Variant(BEFORE, key, method) for key, method in asked.items() if method.weights is None)
    random = [replace(untrained, label=RANDOM, key=f"{untrained.key}-{i}", draw=i) for i in range(draws)]
    trained = {key: method for key, method in asked.items() if method.weights}
    sources = [method.weights[0] for method in trained.values() if method.weights]
    names = [AFTER] if len(sources) == 1 else [f"{AFTER}: {source}" for source in sources]
    after = [Variant(name, key, method) for name, (key, method) in zip(names, trained.items())]
    return [untrained, *random, *after]


def resolved(plan: Plan) -> Rate | None:
    """The rate in tokens, the same for every embedding of the plan."""
    key = next(key for key, method in plan.methods.items() if method.reducer == METHOD)
    return plan.rate_of(key, lambda: sample_images(plan, 1))


def measured(
    plan: Plan, variants: list[Variant], rate: Rate | None, folder: Path, progress: Progress
) -> dict[str, list[np.ndarray]]:
    """Label -> tau (images, depth) of each of its variants; all see the same images."""
    found = {variant.key: read_json(folder / f"{variant.key}.json") for variant in variants}
    todo = [variant for variant in variants if found[variant.key] is None]
    if todo:
        device = resolve_device(plan.spec.device)
        plan.model.to(device)
        handles = {variant.key: variant.handle(plan, rate) for variant in todo}
        rows: dict[str, list[np.ndarray]] = {key: [] for key in handles}
        with progress.images(len(todo) * len(plan.task.samples), len(todo)) as advance:
            for images, views in images_of(plan):
                for key, handle in handles.items():
                    of_views = correlations(handle, images.to(device))
                    rows[key] += [part.mean(axis=0) for part in np.split(of_views, np.cumsum(views)[:-1])]
                    advance("", len(views))
        for key, values in rows.items():
            found[key] = [[None if np.isnan(tau) else float(tau) for tau in row] for row in values]
            write_json(folder / f"{key}.json", found[key])
    taus: dict[str, list[np.ndarray]] = {}
    for variant in variants:
        taus.setdefault(variant.label, []).append(np.array(found[variant.key], dtype=np.float64))
    return taus


def images_of(plan: Plan) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Batches of all images, and how many views each sample has."""
    samples, size = plan.task.samples, plan.spec.batch_size
    batches = [samples[i : i + size] for i in range(0, len(samples), size)]
    for _, batch in load(plan, batches, range(len(batches))):
        if batch.errors:
            raise RequestError(f"unreadable image {batch.errors[0]}; repair it or take it out of the data")
        yield batch.images, batch.views


def places(depth: int) -> dict[str, list[int]]:
    """Name -> blocks: every block, the thirds of the depth, all of it."""
    thirds = [part.tolist() for part in np.array_split(np.arange(depth), GROUPS) if len(part)]
    named = {f"blocks {part[0] + 1}–{part[-1] + 1}": part for part in thirds}
    return {f"block {i + 1}": [i] for i in range(depth)} | named | {"all blocks": list(range(depth))}


def over(blocks: list[int], taus: list[np.ndarray]) -> np.ndarray:
    """(variants, images) mean tau over those of the blocks that merge; NaN where none of them does."""
    chosen = np.stack([tau[:, blocks] for tau in taus])
    merging = ~np.isnan(chosen).all(axis=(0, 1))
    return chosen[..., merging].mean(axis=-1) if merging.any() else np.full(chosen.shape[:2], np.nan)


def sheet_of(plan: Plan, rate: str, taus: dict[str, list[np.ndarray]]) -> Sheet:
    spec, depth = plan.spec, taus[BEFORE][0].shape[1]
    trained = [label for label in taus if label.startswith(AFTER)]
    columns = list(taus) + [f"{CHANGE}{label.removeprefix(AFTER)}" for label in trained]
    table: dict[str, dict[str, Estimate | None]] = {}
    for place, blocks in places(depth).items():
        values = {label: over(blocks, taus[label]) for label in taus}
        found = {label: estimate(value) for label, value in values.items()}
        before = values[BEFORE]
        found |= {f"{CHANGE}{label.removeprefix(AFTER)}": estimate(values[label] - before) for label in trained}
        table[place] = found
    records = [
        {"place": place, "embedding": label, **record("tau", found[label])}
        for place, found in table.items()
        for label in columns
    ]
    lines = [[place, *(format_estimate(found[label], DECIMALS) for label in columns)] for place, found in table.items()]
    about: dict[str, Any] = {
        "analysis": "correlation", "task": spec.task, "model": spec.model, "weights": plan.weights.source,
        "rate": rate, "images": len(plan.task.samples),
        "embeddings": {method.weights[0]: method.weights[1] for method in plan.methods.values() if method.weights},
    }  # fmt: skip
    title = f"{spec.task} · {spec.model} · {rate} · n = {len(plan.task.samples)}"
    return Sheet(
        "correlation", f"Keys and embedding: {title}", about, records, ("", *columns), lines, notes(plan, taus),
        partial(draw_correlation, table, depth, title),
    )  # fmt: skip


def notes(plan: Plan, taus: dict[str, list[np.ndarray]]) -> tuple[str, ...]:
    said_of = [
        "Kendall's tau-b between cosine similarities by keys (mean over heads) and by the embedding, over all pairs "
        "that a block's bipartite split lets merge, of the tokens that it sees with hard merging by that embedding; "
        "mean over images [95 % interval over images]; a group is the mean of its blocks.",
    ]
    if RANDOM in taus:
        said_of.append(f"{RANDOM}: linear maps drawn anew, mean of {len(taus[RANDOM])}.")
    if plan.weights.kind == "random":
        said_of.append("The model itself has random weights.")
    return tuple(said_of)
