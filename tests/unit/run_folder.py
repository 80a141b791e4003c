"""Run folders written to disk as a sweep leaves them, with made-up outcomes: what the tests of reports read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from suite.contract.metric import Cost, Metric, TaskReport
from suite.stats.aggregates import Bleu, Mean, Meteor
from suite.store.schema import SCHEMA
from suite.store.study import StudyFolder
from tasks.classification import ClassificationTask
from tasks.scenes.classes import Scenes

N = 400
METHODS = {"tome": 4.0, "evit": 7.0, "topk": 9.0, "uniform": 16.0, "random": 24.0}
BASE_GMACS, BASE_IM_S = 1.25, 210.0
LEARNED = {
    "dtem": "embedding", "dynamicvit": "predictor", "dtps": "predictor", "patchmerger": "queries",
    "sinkhorn": "centres", "sit": "assignment", "diffrate": "rates",
}  # fmt: skip
NEWER_FIELDS = ("neighbours", "learned", "reducer_weights", "formulation")  # of cell.json; older runs lack them
ATS_FLOPS = {
    "images": 256, "total_p5": 7e8, "total_p95": 8e8, "tokens_mean": 61.5, "tokens_p5": 50.0, "tokens_p95": 72.0,
}  # fmt: skip


def sample_ids(n: int) -> list[str]:
    return [f"val/{i:05d}" for i in range(n)]


def outcomes(ids: list[str], right: int, seed: int) -> pa.Table:
    """`right` of the ids are predicted as their label (here 3), the others as one of ten wrong classes."""
    n = len(ids)
    wrong = np.random.default_rng(seed).integers(10, 20, n)
    correct = np.arange(n) < right
    prediction = np.where(correct, 3, wrong).astype(np.int32)
    top5 = [[int(p), 3, 21, 22, 23] if i % 5 else [int(p), 21, 22, 23, 24] for i, p in enumerate(prediction)]
    return pa.table(
        {
            "id": ids,
            "label": np.full(n, 3, np.int32),
            "prediction": prediction,
            "correct": correct,
            "correct5": [3 in five for five in top5],
            "top5": pa.array(top5, pa.list_(pa.int32())),
            "confidence": np.full(n, 0.5, np.float32),
        }
    )


def score_cell(folder: Path) -> None:
    """scores.json of the outcomes that lie in a cell's folder."""
    shards = [folder / "samples.parquet"] if (folder / "samples.parquet").exists() else folder.glob("samples/*.parquet")
    rows = pa.concat_tables([pq.read_table(shard) for shard in shards]).to_pandas()
    [(_, summary)] = Scenes(limit=1).summaries({"cell": rows})
    scores = {name: asdict(score) for name, score in summary.scores.items()}
    write_json(folder / "scores.json", {"of": "", "scores": scores, "notes": []})


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_samples(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_cell(out: Path, reducer: str, rate: str = "", *, accuracy: float = 0.9, cut: float = 0.0, **changes) -> str:
    """One finished cell; `cut` is the share of FLOPs saved. Keyword `about`, `flops`, `speed` overwrite fields."""
    key = f"{reducer}-{rate or 'full'}".replace("=", "-").replace("%", "")
    folder = out / "cells" / key
    ids = sample_ids(N)
    about = {
        "key": key, "task": "scenes", "model": "vit_scenes", "weights": "embedded", "weights_kind": "trained",
        "reducer": reducer, "options": {}, "rate": rate, "resolved_rate": f"r={round(cut * 30)}" if rate else "",
        "precision": "fp32", "batch_size": 32, "image_size": 112, "depth": 12, "tokens_in": 197,
        "neighbours": [], "learned": LEARNED.get(reducer), "reducer_weights": None, "formulation": None,
        "planned_counts": [197 - round(cut * 14) * (i + 1) for i in range(12)],
    }  # fmt: skip
    total, overhead = int(BASE_GMACS * 1e9 * (1 - cut)), int(4e6 * (reducer != "none"))
    flops = {
        "total": total, "reducer": overhead, "by_part": {}, "by_block": [], "formula": total, "torch": total,
        "disputed": False, "uncounted": {}, "further": {}, "baseline_total": int(BASE_GMACS * 1e9),
    }  # fmt: skip
    ratio = 1 / (1 - 0.9 * cut)
    speed = {
        "device": "Test CPU", "batch_size": 32, "precision": "fp32", "compile": False, "attention": "sdpa",
        "rounds": [], "im_s": BASE_IM_S * ratio, "im_s_low": BASE_IM_S * ratio * 0.99,
        "im_s_high": BASE_IM_S * ratio * 1.01, "speedup": ratio, "speedup_low": ratio * 0.99,
        "speedup_high": ratio * 1.01, "aa_low": 0.992, "aa_high": 1.006, "noisy": False,
        "peak_memory_bytes": None, "note": None,
    }  # fmt: skip
    write_json(folder / "cell.json", about | changes.get("about", {}))
    write_json(folder / "flops.json", flops | changes.get("flops", {}))
    write_json(folder / "speed.json", speed | changes.get("speed", {}))
    write_samples(folder / "samples.parquet", outcomes(ids, round(accuracy * N), seed=len(key)))
    score_cell(folder)
    run = json.loads((out / "run.json").read_text())
    write_json(out / "run.json", run | {"cells": sorted({*run["cells"], key})})
    return key


def start_run(out: Path, n: int = N) -> Path:
    write_json(
        out / "run.json",
        {
            "schema": SCHEMA,
            "spec": {},
            "identity": {},
            "slots": {},
            "cells": [],
            "shown": ClassificationTask.shown.as_dict(),
        },
    )
    write_samples(out / "manifest.parquet", pa.table({"id": sample_ids(n), "label": np.full(n, 3, np.int32)}))
    (out / "cells").mkdir()
    return out


def write_run(out: Path, methods: dict[str, float] = METHODS, **changes) -> Path:
    """A sweep over `methods` (name -> percentage points lost at 50 % of the FLOPs) at four rates each."""
    start_run(out)
    write_cell(out, "none", accuracy=0.93, **changes)
    for name, loss in methods.items():
        for cut in (0.15, 0.28, 0.4, 0.5):
            accuracy = 0.93 - loss / 100 * (cut / 0.5) ** 2
            write_cell(out, name, f"flops=-{cut:.0%}", accuracy=accuracy, cut=cut + 0.003 * len(name) % 0.02, **changes)
    return out


def write_study(out: Path, models: dict[str, float], methods: dict[str, float] = METHODS) -> Path:
    """A study of runs of `write_run`: of each model, by its name, at so many times the cost."""
    for name, times in models.items():
        (out / name).mkdir(parents=True)
        run = write_run(out / name, methods)
        for folder in list((run / "cells").iterdir()):  # keys are of one model, as those of true runs are
            key = f"{name}-{folder.name}"
            folder = folder.rename(folder.with_name(key))
            rewrite(folder / "cell.json", key=key, model=name)
            flops = json.loads((folder / "flops.json").read_text())
            rewrite(folder / "flops.json", **{part: times * flops[part] for part in ("total", "baseline_total")})
        rewrite(run / "run.json", cells=sorted(folder.name for folder in (run / "cells").iterdir()))
    StudyFolder(out).add(list(models))
    return out


def rewrite(path: Path, **changes) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def change_all(out: Path, file: str, **changes) -> None:
    for path in out.glob(f"cells/*/{file}.json"):
        rewrite(path, **changes)


CAPTIONS = TaskReport(
    metrics=(
        Metric("cider", "CIDEr", Mean("cider"), largest=10.0),
        Metric("meteor", "METEOR", Meteor()),
        Metric("spice", "SPICE", Mean("spice")),
        Metric("bleu_1", "B@1", Bleu(1), hidden=True),
    ),
    costs=(Cost("prefill", "Prefill GFLOPs"),),
    throughput="captions/s",
)


def make_captions(out: Path) -> Path:
    """A run of `write_run` as a captioning task leaves it: other scores, further costs, and the whole model's speed."""
    rewrite(out / "run.json", shown=CAPTIONS.as_dict())
    for folder in (out / "cells").iterdir():
        top1 = json.loads((folder / "scores.json").read_text())["scores"]["top1"]
        cider = {part: 1.4 * top1[part] for part in ("value", "low", "high")} | {"reason": ""}
        none = {"value": None, "low": None, "high": None, "reason": ""}
        scores = {"cider": cider, "meteor": none | {"value": 0.281}, "bleu_1": none | {"value": 0.7}}
        scores["spice"] = none | {"reason": "needs CoreNLP"}
        notes = ["3 of 400 captions are empty"] if folder.name.startswith("tome") else []
        rewrite(folder / "scores.json", scores=scores, notes=notes)
        flops, speed = (json.loads((folder / f"{name}.json").read_text()) for name in ("flops", "speed"))
        rewrite(folder / "flops.json", further={"prefill": flops["total"] // 4})
        whole = {"im_s": 31.5, "im_s_low": 30.5, "im_s_high": 32.5, "compile": False, "aa_low": 0.9, "aa_high": 1.2}
        write_json(folder / "whole_speed.json", speed | whole | {"batch_size": 32, "speedup": 1.25})
    return out
