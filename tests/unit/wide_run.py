"""A run as large as people have: 100 cells on 5000 samples, with pictures and token groups, written without a model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from reports.page.exhibits import CellMaps, Exhibits
from suite.store.schema import SCHEMA
from tasks.classification import ClassificationTask
from tests.unit.run_folder import write_json, write_samples

METHODS = ("tome", "dtem", "mctf", "evit", "topk", "tofu", "etps", "pitome", "random", "uniform", "kmedoids")
CELLS, SAMPLES, CLASSES, DEPTH, SIDE = 100, 5000, 1000, 12, 14
PICTURES, PICTURE_SIDE = 400, 112


def write_wide_run(out: Path, names: tuple[str, ...] = ()) -> Path:
    """The unreduced model, and METHODS at ever stronger rates. names: ids of the first samples."""
    random = np.random.default_rng(0)
    ids = [f"val/n{i % CLASSES:08d}/ILSVRC2012_val_{i:08d}.JPEG" for i in range(SAMPLES)]
    ids[: len(names)] = names
    label = random.integers(0, CLASSES, SAMPLES).astype(np.int32)
    hardness, second = random.random(SAMPLES), random.integers(0, CLASSES, SAMPLES).astype(np.int32)
    write_samples(out / "manifest.parquet", pa.table({"id": ids, "label": label}))
    keys = []
    for cell in range(CELLS):
        step, place = divmod(cell - 1, len(METHODS))
        method, step = (METHODS[place], step + 1) if cell else ("none", 0)
        share = 0.85 - 0.02 * step - 0.01 * (cell % 3)
        noise = 0.05 * random.standard_normal(SAMPLES)
        prediction = np.where(hardness + noise < share, label, second)
        keys.append(_cell(out, method, step, prediction == label, ids, label, prediction))
    write_json(
        out / "run.json",
        {
            "schema": SCHEMA,
            "spec": {},
            "identity": {},
            "slots": {},
            "cells": keys,
            "shown": ClassificationTask.shown.as_dict(),
        },
    )
    exhibits(ids[:PICTURES], keys[1:]).save(out)
    return out


def _cell(out: Path, method: str, step: int, correct: np.ndarray, ids: list[str], label: np.ndarray, said: np.ndarray):
    rate = f"r={2 * step}" if step else ""
    key, cut = f"{method}-{step}", 0.045 * step
    folder, total = out / "cells" / key, int(4.6e9 * (1 - cut))
    score = {"value": float(correct.mean()), "low": correct.mean() - 0.01, "high": correct.mean() + 0.01, "reason": ""}
    write_json(
        folder / "cell.json",
        {
            "key": key, "task": "imagenet", "model": "deit_small_patch16_224", "weights": "timm", "reducer": method,
            "weights_kind": "trained", "options": {}, "rate": rate, "resolved_rate": rate, "precision": "fp16",
            "batch_size": 64, "image_size": None, "depth": DEPTH, "tokens_in": 197, "learned": None,
            "reducer_weights": None,
            "planned_counts": [197 - 2 * step * (block + 1) for block in range(DEPTH)],
        },
    )  # fmt: skip
    write_json(
        folder / "flops.json",
        {
            "total": total, "reducer": 0, "by_block": [total // DEPTH] * DEPTH, "disputed": False, "uncounted": {},
            "further": {}, "baseline_total": int(4.6e9),
        },
    )  # fmt: skip
    write_json(folder / "scores.json", {"of": "", "scores": {"top1": score, "top5": score}, "notes": []})
    columns = {"id": ids, "label": label, "prediction": said.astype(np.int32), "correct": correct}
    write_samples(folder / "samples.parquet", pa.table(columns))
    return key


def exhibits(ids: list[str], keys: list[str]) -> Exhibits:
    """Noisy pictures, which no JPEG makes small, and groups that become fewer from block to block."""
    random = np.random.default_rng(1)
    shape = (PICTURE_SIDE // 4, PICTURE_SIDE // 4, 3)
    pictures = {id: _jpeg(random.integers(0, 255, shape, dtype=np.uint8).repeat(4, 0).repeat(4, 1)) for id in ids}
    patches = np.arange(SIDE * SIDE)
    maps = {}
    for key in keys:
        owners = np.stack([np.minimum(patches, random.permutation(patches)) // (1 + block) for block in range(DEPTH)])
        tokens = np.array([197, *(197 - 9 * (block + 1) for block in range(DEPTH))])
        maps[key] = CellMaps((SIDE, SIDE), dict.fromkeys(ids[:4], owners), dict.fromkeys(ids[:4], tokens))
    return Exhibits(["<b>sea</b> lion"] * CLASSES, pictures, {id: pictures[id] for id in ids[:4]}, maps)


def _jpeg(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=85)
    return data.getvalue()


def rename_samples(out: Path, names: dict[int, str]) -> None:
    """Give some samples other ids, in the manifest and in every cell."""
    for path in [out / "manifest.parquet", *out.glob("cells/*/samples.parquet")]:
        with pq.ParquetFile(path) as file:
            table = file.read()
        ids = table["id"].to_pylist()
        for place, name in names.items():
            ids[place] = name
        write_samples(path, table.set_column(table.column_names.index("id"), "id", pa.array(ids)))
