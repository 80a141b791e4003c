"""The tidy frame of a run: one row per cell, read from the run's folder alone (no model is loaded, no torch).

`load_frame` is what every report starts from. What a reader may rely on:

- A number stands in a row only if it was measured. Scores are NaN, never 0, until every readable sample of the cell
  is scored, for failed cells, and for random weights (where a score means nothing).
- `samples + missing == expected` holds for every row whose status is "done".
- The same store gives the same frame, row order included, however often the run was killed on its way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reports.cells import Cell, read_cells, read_manifest, read_samples
from reports.order import method_order, rate_order
from reports.repeats import mark_repeats
from reports.speeds import (
    FURTHER_NUMBERS,
    INTERVAL,
    SPEED_TEXTS,
    first_seconds,
    interval_columns,
    shown_runtime,
    speed_note,
    speed_row,
    speed_rows,
    timing_of,
    whole_speed_of,
)
from reports.text.wording import short_origins, training_of
from reports.traces import circumstances_of_trace, columns_of_trace
from suite.contract.baseline import BASELINE
from suite.contract.metric import Metric, TaskReport
from suite.errors import RequestError
from suite.stats import paired_agreement, wilson_interval
from suite.store.folder import CellFolder, RunFolder
from suite.store.sealed import DamagedError
from suite.store.study import runs_in

TEXT, WHOLE, NUMBER, TRUTH = "str", "int64", "float64", "boolean"
_COLUMNS_BY_DTYPE = (
    # training: "", "untrained embedding" (or what else the method learns), or "trained: <file of weights>"
    # restore: when a dense model gets its tokens back; "" where it never does
    ("task model weights weights_kind restore reducer training options rate resolved_rate precision", TEXT),
    ("batch_size samples expected missing", WHOLE),
    # the task's metrics stand here: <name> <name>_low <name>_high, the latter two a 95 % interval
    # share of samples with the unreduced model's prediction, on the same ids, with Wilson's 95 % interval
    ("agreement agreement_low agreement_high", NUMBER),
    # what guessing scores by the task's first metric, where it is known
    ("chance", NUMBER),
    # 10^9 multiply-accumulates per image; reduction -0.35 = 35 % fewer than the unreduced model
    ("gmacs reduction overhead_gmacs", NUMBER),
    # the task's further costs stand here: <name>_gmacs, of what comes after the backbone
    # 5th and 95th percentile over images, where the cost depends on the image; gmacs is then their mean
    ("gmacs_p5 gmacs_p95", NUMBER),
    ("disputed", TRUTH),
    # operations that no counter knows; which of several formulations of attention was run, if the method has them
    ("uncounted formulation", TEXT),
    # tokens leaving the last block, prefix included (mean, percentiles: see gmacs); images per second; mebibytes
    ("tokens_left tokens_p5 tokens_p95", NUMBER),
    # traced, not measured (reports/traces.py; attrs["context"] says at what): of a batch's forward launches, those of a
    # reducing block beyond the unreduced one's, 10^6 bytes moved per image, host reads, mebibytes at once
    ("launches extra_launches moved_mb host_reads traced_peak_mib", NUMBER),
    ("im_s im_s_low im_s_high speedup speedup_low speedup_high peak_memory_mib", NUMBER),
    # see `reports.speeds`, where what was timed under other runtimes is, too
    (" ".join(FURTHER_NUMBERS), NUMBER),
    (" ".join(SPEED_TEXTS), TEXT),
    # samples per second through the whole model where it is more than a backbone, such as captions per second
    ("whole_s whole_s_low whole_s_high whole_speedup whole_speedup_low whole_speedup_high", NUMBER),
    # seconds a sample of the first batch through the whole model; 1 / whole_s are those of the following ones
    ("whole_first_s", NUMBER),
    # of a row that others repeat with other random draws (reports/repeats.py): how many there are, itself included, the
    # mean of their first metric with its interval over seeds; of the others the key of that row, "" of all else
    ("seeds seeds_mean seeds_low seeds_high", NUMBER),
    ("repeat_of", TEXT),
    # filled by reports.marks.marked: the floor (a smaller image, ...) that the row is dominated by, "" by none, n/a
    # where no floor costs as little; score and cost of the best rate for every image (reports/marks/oracle.py)
    ("dominated_flops dominated_time", TEXT),
    ("oracle oracle_gmacs", NUMBER),
    ("speed_note whole_note status reason", TEXT),
)
COLUMNS = {name: dtype for names, dtype in _COLUMNS_BY_DTYPE for name in names.split()}
AGREEMENT = Metric("agreement", "Agreement (%)")
SCORE_PARTS = ("value", "low", "high")
SHARED = ("task", "model", "weights", "weights_kind", "restore", "precision", "batch_size")
# Circumstances of a cell that captions need and that are no columns: frame.attrs["context"][key].
# reasons: metric -> why it has no value; notes: what must be known of the scores; flops_images: over how many images an
# input-dependent cost is averaged; untraced: why the cost is counted as dispatched alone, "" if it is not; neighbours:
# [[rate, reduction], ...] around a FLOPs target that no rate meets; trace: what the launches were counted on;
# learned_from: the source of what the method has learned, None if nothing.
# speeds: the row's speed columns under every runtime on every device, with the device's name and how it was timed.


class Attached(dict[str, Any]):
    """What goes with a frame. It is no one's to change: pandas would copy it with every row that is looked at."""

    def __deepcopy__(self, _: dict[int, Any]) -> Attached:
        return self


def load_frame(out: str | Path) -> pd.DataFrame:
    """One row per cell of the run in folder `out`, or of all runs of a study, one run after the other.

    Its columns are those of `columns_of`, of all tasks that there are, indexed by the cell's key. `frame.attrs["runs"]`
    says of which task the run in a folder is, and what that reports; `frame.attrs["context"]` maps a key to the
    folder of the cell's run, its image size and other circumstances of its scores, cost and speed.
    `frame.attrs["damaged"]` names the files that are damaged, `frame.attrs["unread"]` runs of a study that are left out
    for it, with the reasons.

    Raises:
        RequestError: `out` is not the folder of a run or a study, was written with another schema, or one of the files
            that all cells share is damaged in every run. A cell with a damaged file has failed, and its reason says so.
    """
    frames, unread = [], {}
    for run in runs_in(out):
        try:
            frames.append(load_run(run))
        except DamagedError as error:
            unread[run.name] = error
    if not frames:
        raise next(iter(unread.values()))
    joined = pd.concat([frame for frame in frames if len(frame)] or frames)
    if not joined.index.is_unique:
        twice = joined.index[joined.index.duplicated()][0]
        runs = [about["out"] for frame in frames for key, about in frame.attrs["context"].items() if key == twice]
        raise RequestError(f"{' and '.join(runs)} hold the same cell ({twice}): they are one run; remove one of them")
    for name in ("runs", "context"):
        joined.attrs[name] = Attached(item for frame in frames for item in frame.attrs[name].items())
    joined.attrs["unread"] = Attached((name, str(error)) for name, error in unread.items())
    joined.attrs["damaged"] = [*map(str, unread.values()), *(line for of in frames for line in of.attrs["damaged"])]
    return joined


def load_run(out: Path) -> pd.DataFrame:
    """`load_frame` of one run."""
    cells, run = read_cells(out), RunFolder(out).read_run()
    shown, runtime = TaskReport.from_dict(run["shown"]), shown_runtime(run["spec"], cells)
    origins = short_origins(_source(cell.about) for cell in cells)
    rows = sorted(((_row(cell, _baseline_of(cell, cells), origins, runtime), cell) for cell in cells), key=_order)
    keys, columns = pd.Index([cell.key for _, cell in rows], name="key", dtype="str"), columns_of(shown)
    frame = typed(pd.DataFrame([row for row, _ in rows], index=keys, columns=list(columns)), columns)
    frame["repeat_of"] = ""
    random = (frame.weights_kind == "random").any()
    mark_repeats(frame, {cell.key: cell.about for _, cell in rows}, AGREEMENT if random else shown.metrics[0])
    task = run["spec"].get("task") or next(iter(frame.task), "")
    frame.attrs["runs"] = Attached({str(out): {"task": task, "shown": shown.as_dict()}})
    frame.attrs["context"] = Attached((cell.key, {"out": str(out), **_context(cell, runtime)}) for _, cell in rows)
    frame.attrs["damaged"] = [line for _, cell in rows for line in cell.damaged]
    return frame


def typed(frame: pd.DataFrame, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """The frame with its columns cast. Missing texts stay missing: pandas before 3 makes 'nan' or 'None' of them."""
    cast = frame.astype(dict(dtypes))
    texts = [name for name, dtype in dtypes.items() if dtype == TEXT]
    return cast.assign(**cast[texts].where(frame[texts].notna()))


def columns_of(shown: TaskReport) -> dict[str, str]:
    """Name -> dtype of a frame's columns: those of every task, and the task's own."""
    scores = [metric.name + end for metric in shown.metrics for end in INTERVAL]
    own = {"agreement": scores, "gmacs_p5": [f"{cost.name}_gmacs" for cost in shown.costs]}
    columns: dict[str, str] = {}
    for name, dtype in COLUMNS.items():
        columns |= dict.fromkeys(own.get(name, ()), NUMBER)
        if shown.throughput or not name.startswith("whole_"):
            columns[name] = dtype
    return columns


def load_samples(out: str | Path, key: str) -> pd.DataFrame:
    """The outcomes and scores of one cell's samples, in the manifest's order, each id once.

    Raises:
        RequestError: `out` is not the folder of a run or a study, or it has no cell `key`.
    """
    holding = [run for run in runs_in(out) if (run / "cells" / key / "cell.json").is_file()]
    if not holding:
        cells = " or ".join(str(run / "cells") for run in runs_in(out))
        raise RequestError(f"cell '{key}': not in the run {out}; see the folders in {cells}")
    manifest, folder = read_manifest(holding[0]), holding[0] / "cells" / key
    samples, _ = read_samples(folder, manifest)
    if (scores := CellFolder(folder).read_scores()) is not None:
        samples = samples.merge(scores, on="id", how="left")
    return samples.reset_index(drop=True)


def _baseline_of(cell: Cell, cells: list[Cell]) -> Cell | None:
    """The finished unreduced cell to compare with, preferably of the same batch size."""
    twins = [c for c in cells if c.about.get("reducer") == BASELINE and c.comparable == cell.comparable]
    twins = [c for c in twins if c.status == "done"]
    same_batch = [c for c in twins if c.about.get("batch_size") == cell.about.get("batch_size")]
    return next(iter(same_batch + twins), None)


def _row(cell: Cell, baseline: Cell | None, origins: Mapping[str, str], runtime: str) -> dict[str, Any]:
    about, options, counts = cell.about, cell.about.get("options"), cell.about.get("planned_counts")
    return {
        **{name: about.get(name) for name in (*SHARED, "reducer", "rate", "resolved_rate")},
        "restore": about.get("restore") or "",  # null would be no group of its own
        "training": training_of(about.get("learned"), _source(about), origins),
        "options": json.dumps(options, sort_keys=True) if options else "",
        "formulation": about.get("formulation") or "",
        "samples": len(cell.samples),
        "expected": cell.expected,
        "missing": cell.missing,
        "tokens_left": counts[-1] if counts else None,
        **_scores(cell),
        **_agreement(cell, baseline),
        **_cost(cell.flops),
        **columns_of_trace(cell.kernels),
        **speed_row(cell, runtime),
        **_whole_speed(cell),
        "status": cell.status,
        "reason": cell.reason,
    }


def _source(about: dict[str, Any]) -> str | None:
    """Where the cell's method has its weights from."""
    return (about.get("reducer_weights") or {}).get("source")


def _scores(cell: Cell) -> dict[str, float | None]:
    """Values of the metrics with their intervals; none of random weights, whose scores mean nothing."""
    if cell.scores is None or cell.status != "done" or cell.about.get("weights_kind") == "random":
        return {}
    scores = cell.scores["scores"]
    found = {f"{name}{end}": of[part] for name, of in scores.items() for end, part in zip(INTERVAL, SCORE_PARTS)}
    return found | {"chance": next((of["chance"] for of in scores.values() if of.get("chance")), None)}


def _agreement(cell: Cell, baseline: Cell | None) -> dict[str, float]:
    if cell.status != "done":
        return {}
    if cell.about.get("reducer") == BASELINE:  # equal to itself by definition, so without an interval
        return {"agreement": 1.0, "agreement_low": 1.0, "agreement_high": 1.0}
    if baseline is None:
        return {}
    ids = cell.samples.index.intersection(baseline.samples.index)
    same, count = paired_agreement(*(c.samples["prediction"].loc[ids] for c in (cell, baseline)))
    interval = wilson_interval(same, count)
    return {} if interval is None else dict(zip((f"agreement{end}" for end in INTERVAL), (same / count, *interval)))


def _cost(flops: dict[str, Any] | None) -> dict[str, Any]:
    if flops is None:
        return {}
    baseline = flops.get("baseline_total")
    row = {}
    if flops.get("total_p5") is not None:
        row = {f"gmacs_{end}": flops[f"total_{end}"] / 1e9 for end in ("p5", "p95")}
        row |= {f"tokens_{end}": flops[f"tokens_{end}"] for end in ("p5", "p95")}
        row["tokens_left"] = flops["tokens_mean"]
    row |= {f"{name}_gmacs": macs / 1e9 for name, macs in flops["further"].items()}
    return row | {
        "gmacs": flops["total"] / 1e9,
        "reduction": flops["total"] / baseline - 1 if baseline else None,
        "overhead_gmacs": flops["reducer"] / 1e9,
        "disputed": flops["disputed"],
        "uncounted": ", ".join(f"{op} ×{n}" for op, n in sorted(flops["uncounted"].items())),
    }


def _whole_speed(cell: Cell) -> dict[str, Any]:
    """The row's speed of the whole model."""
    speed = whole_speed_of(cell)
    found = interval_columns(speed, {"whole_s": "im_s", "whole_speedup": "speedup"})
    return found | {"whole_first_s": first_seconds(speed), "whole_note": speed_note(speed, cell.about)}


def _context(cell: Cell, runtime: str) -> dict[str, Any]:
    scores = cell.scores["scores"] if cell.scores else {}
    return {
        "image_size": cell.about.get("image_size"),
        "neighbours": cell.about.get("neighbours") or [],
        "reasons": {name: score["reason"] for name, score in scores.items() if score["value"] is None},
        "notes": [*(cell.scores["notes"] if cell.scores else []), *_made_with(cell.about)],
        "flops_images": (cell.flops or {}).get("images"),
        "untraced": (cell.flops or {}).get("untraced", ""),
        "learned_from": _source(cell.about),
        "trace": circumstances_of_trace(cell.kernels),
        "speeds": speed_rows(cell),
        **timing_of(cell.timed("speed", runtime)),
        **timing_of(whole_speed_of(cell), "whole_"),
    }


def _made_with(about: dict[str, Any]) -> list[str]:
    """What is otherwise of a cell that comes from another run than the others."""
    return [f"Made with {name} {value}" for name, value in sorted(about.get("circumstances", {}).items())]


def _order(entry: tuple[dict[str, Any], Cell]) -> tuple[Any, ...]:
    row, cell = entry
    sweep = (*(str(row[name]) for name in SHARED[:-1]), row["batch_size"])
    method = method_order(row["reducer"], row["options"], row["training"])
    return (*sweep, *method, *rate_order(row["rate"] or "", row.get("gmacs")), cell.key)
