"""A finished run as large as ImageNet's: 45 cells on 50,000 images, made in a few minutes, whose outcomes are drawn.

    python -m tests.perf.big_run --images 50000 --cells 45 --out DIR

All else is as `run` leaves it: images that can be read, a file of weights, the plan's own keys, costs, traces, contents
of the files, seals. So `report DIR`, and the command that is printed, which continues the run, take the time that they
take after a true one. Its scores mean nothing, and its speeds are of a device named SYNTHETIC.
"""

from __future__ import annotations

import argparse
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from safetensors.torch import save_file

from suite.contract.task import Sample
from suite.measure.machine import describe_machine
from suite.measure.runtimes import EAGER
from suite.measure.speed_result import SpeedResult
from suite.models.load import load_model
from suite.store.schema import CONTENTS
from suite.sweep.changes import content_now, rows_of
from suite.sweep.engine import count_cost, prepare, score
from suite.sweep.lane import StoredCell
from suite.sweep.plan import Plan, make_plan, source_of_runtime
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec
from suite.sweep.tracing import trace_cells
from tasks.imagenet.labels import synset_index

METHODS = ("tome", "pitome", "tofu", "mctf", "evit", "etps", "topk", "dpcknn", "kmedoids", "uniform", "random")
LEAST, STEP = 4, 3  # r of a method's first rate, and what each further one adds
CLASSES, TOP, PICTURES = 1000, 5, 50
SYNTHETIC = "synthetic, no device was timed"


def write_images(folder: Path, images: int) -> None:
    """`images` JPEGs of 32 pixels, PICTURES different ones, in the class folders of ImageNet's validation set."""
    random, pictures, classes = np.random.default_rng(0), [], sorted(synset_index())
    for _ in range(PICTURES):
        data = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(data, "JPEG")
        pictures.append(data.getvalue())
    for synset in classes[:images]:
        (folder / "val" / synset).mkdir(parents=True, exist_ok=True)
    for number in range(images):
        name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        (folder / "val" / classes[number % CLASSES] / name).write_bytes(pictures[number % PICTURES])


def write_weights(file: Path, model: str) -> None:
    """The model as it is initialised, in a file: by that it counts as trained."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(load_model(model, "none")[0].state_dict(), file)


def request(out: Path, images: int, cells: int, model: str) -> dict[str, Any]:
    """What such a run is asked: the unreduced model, and METHODS at ever stronger rates. Its images and weights are
    written beside `out`, unless they are there."""
    data, weights = (out.with_name(f"{out.name}-{what}") for what in (f"{images}-images", f"{model}.safetensors"))
    if not data.exists():
        write_images(data, images)
    if not weights.exists():
        write_weights(weights, model)
    places = [divmod(number, len(METHODS)) for number in range(cells - 1)]
    return {
        "task": "imagenet", "data": str(data), "model": model, "checkpoint": str(weights), "device": "cpu",
        "cells": [{"reducer": METHODS[place], "rate": f"r={LEAST + STEP * step}"} for step, place in places],
        "out": str(out),
    }  # fmt: skip


def write_run(values: dict[str, Any], progress: Progress) -> Plan:
    """The finished run in its folder."""
    plan = make_plan(make_spec(values))
    folder, _ = plan.open_folder()
    folder.write_environment(describe_machine)
    cells = count_cost(plan, prepare(plan, folder, list(plan.methods), progress), progress)
    trace_cells(plan, cells, progress)
    contents = {sample.id: content for sample in plan.task.samples if (content := content_now(plan, sample))}
    folder.contents.replace([], rows_of(contents), CONTENTS)
    hardness = np.random.default_rng(0).random(len(plan.task.samples))
    for seed, cell in enumerate(cells):
        rows = draw_outcomes(cell, plan.task.samples, hardness, seed)
        cell.folder.files.write_rows(cell.folder.shards.whole, rows.cast(plan.task.outcomes))
        cell.folder.write("accuracy", {"batch_size": cell.batch_size})
        cell.folder.write("speed", {"runtimes": {EAGER: draw_speed(cell) | {"source": source_of_runtime(EAGER)}}})
    score(plan, cells, progress)
    return plan


def share_left(cell: StoredCell) -> float:
    """Of the tokens, after the last block."""
    planned = cell.about["planned_counts"]
    return float(planned[-1] / cell.about["tokens_in"])


def draw_outcomes(cell: StoredCell, samples: Sequence[Sample], hardness: np.ndarray, seed: int) -> pa.Table:
    """Rows of a cell that errs the more often the fewer tokens it leaves: on hard samples first, with noise."""
    random, n = np.random.default_rng(seed), len(samples)
    label = np.array([sample.label for sample in samples], dtype=np.int32)
    right = hardness + 0.05 * random.standard_normal(n) < 0.8 - 0.2 * (1 - share_left(cell)) ** 2
    place = np.where(right, 0, random.integers(1, TOP + 2, n))  # of the label among the best classes, or beyond them
    best = (label[:, None] + np.arange(TOP) - place[:, None]) % CLASSES
    return pa.table(
        {
            "id": [sample.id for sample in samples],
            "label": label,
            "prediction": best[:, 0],
            "correct": place == 0,
            "correct5": place < TOP,
            "top5": best.tolist(),
            "confidence": np.clip(1.1 - hardness + 0.1 * random.standard_normal(n), 1 / CLASSES, 1),
        }
    )


def draw_speed(cell: StoredCell) -> dict[str, Any]:
    """As if time went with the tokens that are left."""
    ratio = 2 / (1 + share_left(cell))
    timed = SpeedResult(SYNTHETIC, cell.batch_size, cell.about["precision"], EAGER, aa_low=0.995, aa_high=1.005)
    ends = {"": 1.0, "_low": 0.99, "_high": 1.01}
    paces, speedups = ({f"{name}{end}": of * near for end, near in ends.items()}
                       for name, of in (("im_s", 1000 * ratio), ("speedup", ratio)))  # fmt: skip
    return {**timed.as_dict(), "noisy": False, **paces, **speedups}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--cells", type=int, default=45)
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    values = request(given.out.resolve(), given.images, given.cells, given.model)
    asked = given.out.with_name(f"{given.out.name}.yaml")
    plan = write_run(values, Progress())
    asked.write_text(plan.spec.model_dump_json(exclude_defaults=True))
    print(f"python run_bench.py run {shlex.quote(str(asked))}")


if __name__ == "__main__":
    main()
