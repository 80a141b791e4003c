"""A paper's table as measured here, beside what is published."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from suite.contract.baseline import BASELINE
from suite.errors import CellError, RequestError
from suite.measure.from_shapes import ShapeModel
from suite.papers.conventions import in_convention
from suite.papers.table import MACS, TWO_PER_MAC, PaperTable, Way, is_trained, printed_rate
from suite.papers.verdicts import DIFFERS, NO_DATA, REPRODUCED, Score, Verdict, cost_verdict, score_verdict
from suite.rates.rate import rate_text
from suite.sweep.progress import Progress

NO_PLAN = "DiffRate's plan (tokens that stay in every block) is not printed; give its authors' file by --plans"
SCORES = {"imagenet": "top1", "ade20k": "miou", "coco-caption": "cider", "generation": "fid"}
SCALES = {"fid": 1}  # of what is stored; others are fractions, and printed in percent
FURTHER_SCORES = {"coco-caption": {"bleu_4": "bleu4", "meteor": "meteor", "spice": "spice"}}
"""What papers print beside it, by the names of the published data; without verdicts, one a row being enough."""
GIGA = 1e9
PLAN_MODELS = {
    "deit_tiny_patch16_224": "ViT-T-DeiT",
    "deit_small_patch16_224": "ViT-S-DeiT",
    "deit_base_patch16_224": "ViT-B-DeiT",
    "mae_vit_base_patch16": "ViT-B-MAE",
    "mae_vit_large_patch16": "ViT-L-MAE",
    "mae_vit_huge_patch14": "ViT-H-MAE",
}


@dataclass(frozen=True)
class Line:
    """One row of a table. way: how it is measured; None: `why` says why it is not. published: its row in the data."""

    model: str
    method: str
    setting: str
    way: Way | None
    why: str = ""
    published: Any = None


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates per image, and in the paper's convention; or why there is no figure.

    without_own: in the convention, less what the method itself computes.
    """

    macs: float | None = None
    converted: float | None = None
    without_own: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Found:
    """A line's cell in a run: a row of its frame, and the circumstances of its scores and speed."""

    row: Any
    context: Mapping[str, Any]


def lines_of(table: PaperTable, plans: Mapping[str, Any] | None = None) -> list[Line]:
    """The table's rows, each with how it is measured. plans: see `read_plans`."""
    if table.absent:
        return [Line(row.model, row.method, row.setting, row.way) for row in table.unprinted]
    return [line_of(table, row, plans) for row in table.rows()]


def line_of(table: PaperTable, row: Any, plans: Mapping[str, Any] | None = None) -> Line:
    """A printed row, with how it is measured."""
    setting = row.reduction or row.setting or rate_text(printed_rate(row))
    line, way = Line(row.model, row.method, setting, None, published=row), table.way(row)
    if isinstance(way, str):
        return replace(line, why=way)
    if not way.plan:
        return replace(line, way=way)
    return replace(line, why=NO_PLAN) if plans is None else replace(line, way=with_plan(way, plans))


def read_plans(file: str | Path) -> dict[str, Any]:
    """DiffRate's authors' compression_rate.json: model -> GFLOPs -> lists, as text. RequestError for another file."""
    try:
        plans = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RequestError(f"--plans {str(file)!r} cannot be read: {error}") from error
    if not isinstance(plans, dict) or not all(isinstance(targets, dict) for targets in plans.values()):
        raise RequestError(f"--plans {str(file)!r} holds no plans; give DiffRate's compression_rate.json")
    return plans


def with_plan(way: Way, plans: Mapping[str, Any]) -> Way:
    """The way, with the lists of its plan as options. RequestError if the file lacks them."""
    name = PLAN_MODELS.get(way.model, way.model)
    try:
        lists = plans[name][way.plan]
        kept = {key: ast.literal_eval(lists[f"{key}_num"]) for key in ("prune_kept", "merge_kept")}
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise RequestError(f"--plans has no plan of {way.plan} GFLOPs for {name}, or none that can be read") from error
    return replace(way, options=kept)


def count_lines(lines: Sequence[Line], convention: str, progress: Progress) -> list[Cost]:
    """What every line costs, from shapes: neither weights nor data are read."""
    costs: dict[str, Cost] = {}
    models: dict[tuple[str, int | None], ShapeModel] = {}
    todo = {_slot(line.way): line.way for line in lines if line.way}
    for slot, way in progress.steps("counting FLOPs", list(todo.items()), name=lambda item: item[1].model):
        shape = models.get((way.model, way.image_size)) or ShapeModel(way.model, way.image_size)
        models[way.model, way.image_size] = shape
        try:
            count = shape.count(way.reducer, way.rate, way.options)
            whole, rest = (
                in_convention(convention, macs, count.layout, count.trace) for macs in (count.macs, count.closed_form)
            )
            costs[slot] = Cost(count.macs, whole, rest)
        except CellError as error:
            costs[slot] = Cost(why=f"{error}: it is counted on --data")
    return [costs[_slot(line.way)] if line.way else Cost(why=line.why) for line in lines]


def _slot(way: Way) -> str:
    return json.dumps([way.model, way.reducer, rate_text(way.rate), dict(way.options), way.image_size], sort_keys=True)


def table_frame(
    table: PaperTable,
    lines: Sequence[Line],
    costs: Sequence[Cost],
    found: Sequence[Found | None],
    refused: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """One row a line: what is published, what was measured, and the verdicts; the columns are those of `_entry`.

    refused: models that could not be run, and why. `attrs`: what the table as a whole is.
    """
    refused = refused or {}
    lines = [replace(line, why=line.why or refused.get(line.way.model if line.way else "", "")) for line in lines]
    frame = pd.DataFrame([_entry(table, *known) for known in zip(lines, costs, found, strict=True)])
    frame.attrs = {
        "name": table.name,
        "title": table.title,
        "notes": list(table.notes),
        "convention": "" if table.convention == MACS else table.convention,
        "score": SCORES[table.task],
        "further_scores": list(FURTHER_SCORES.get(table.task, ())),
        "absent": table.absent,
        "flops_only": True,
    }
    return frame


def _entry(table: PaperTable, line: Line, cost: Cost, found: Found | None) -> dict[str, Any]:
    row, way = line.published, line.way
    if found is not None and cost.macs is None and found.row.gmacs == found.row.gmacs:
        macs = found.row.gmacs * GIGA  # of real images, where the cost depends on them
        cost = Cost(macs, 2 * macs if table.convention == TWO_PER_MAC else macs)
    published = math.nan if row is None else row.gflops
    verdict = Verdict(NO_DATA, table.absent) if row is None else _cost_verdict(cost, row)
    return {
        "file": getattr(row, "file", ""),
        "line": getattr(row, "line", None),
        "secondary": row is not None and not row.primary,
        "model": line.model,
        "method": line.method,
        "setting": line.setting,
        "training": getattr(row, "training", ""),
        "run_as": run_as(way),
        "derived": bool(way and way.derived),
        "gflops": math.nan if cost.macs is None else cost.macs / GIGA,
        "gflops_converted": math.nan if cost.converted is None else cost.converted / GIGA,
        "gflops_published": published,
        "gflops_printed": getattr(row, "printed_gflops", ""),
        "gflops_difference": math.nan if cost.converted is None else cost.converted / GIGA / published - 1,
        "gflops_verdict": verdict.word,
        "gflops_why": verdict.why,
        **_score_entry(table, line, found),
        **_speed_entry(line, found),
        "provenance": getattr(row, "provenance", ""),
    }


def _cost_verdict(cost: Cost, row: Any) -> Verdict:
    if cost.converted is None:
        return cost_verdict(None, row.gflops, row.printed_gflops, cost.why)
    verdict = cost_verdict(cost.converted / GIGA, row.gflops, row.printed_gflops)
    if verdict.word != DIFFERS:
        return verdict
    return replace(verdict, why=explained(cost, row.printed_gflops))


def explained(cost: Cost, printed: str) -> str:
    """What makes the printed figure of a cost, where that is known: cutting off, or leaving out the method's work."""
    if (whole := cost.converted) is None:
        return ""
    without_own = cost.without_own or whole
    own = whole - without_own
    if own and cost_verdict(without_own / GIGA, float(printed), printed).word == REPRODUCED:
        return (
            f"without the {own / GIGA:.3f} that the method itself computes here it is {without_own / GIGA:.3f}, "
            f"which is {printed}"
        )
    decimals = len(printed.partition(".")[2])
    step = 10**decimals
    if math.floor(whole / GIGA * step) / step == float(printed):
        return f"{whole / GIGA:.3f} is {printed} when it is cut off, not rounded"
    return ""


def run_as(way: Way | None) -> str:
    """'tome r=13', with the options that are set; '' for what is not run."""
    if way is None:
        return ""
    if way.reducer == BASELINE:
        return "unreduced"
    kept = {name: value for name, value in way.options.items() if not isinstance(value, list)}
    said = [f"{name}={value}" for name, value in kept.items()]
    return " ".join(filter(None, (way.reducer, rate_text(way.rate), f"plan {way.plan}" if way.plan else "", *said)))


def _score_entry(table: PaperTable, line: Line, found: Found | None) -> dict[str, Any]:
    row, name = line.published, SCORES[table.task]
    published = math.nan if row is None else getattr(row, name)
    score = None if found is None else score_of(found, name)
    if row is None:
        verdict = Verdict(NO_DATA, table.absent)
    else:
        reduced = line.way is not None and line.way.reducer != BASELINE
        verdict = score_verdict(score, published, row, is_trained(row), reduced)
        verdict = verdict if verdict.word != NO_DATA or verdict.why else Verdict(NO_DATA, line.why or "not measured")
    shown = None if score is None or score.random else score
    return {
        "score": shown.value if shown else math.nan,
        "score_low": shown.low if shown else math.nan,
        "score_high": shown.high if shown else math.nan,
        "score_published": published,
        "score_difference": shown.value - published if shown else math.nan,
        "score_verdict": verdict.word,
        "score_why": verdict.why,
        "samples": score.samples if score else None,
        **_further_scores(table, line, found),
    }


def _further_scores(table: PaperTable, line: Line, found: Found | None) -> dict[str, float]:
    entry = {}
    for name, printed in FURTHER_SCORES.get(table.task, {}).items():
        score = None if found is None else score_of(found, name)
        entry[name] = math.nan if score is None or score.random else score.value
        entry[f"{name}_published"] = math.nan if line.published is None else getattr(line.published, printed)
    return entry


def score_of(found: Found, name: str) -> Score | None:
    """The score of a cell that is done, as papers print it; None of another."""
    row, random = found.row, found.row.weights_kind == "random"
    if row.status != "done":
        return None
    value, low, high = (SCALES.get(name, 100) * getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
    if math.isnan(value) and not random:
        return None
    trained = row.training.startswith("trained: ")
    lacks = f"{row.reducer} is {row.training}" if row.training and not trained else ""
    return Score(value, low, high, row.samples, random, trained, lacks)


def _speed_entry(line: Line, found: Found | None) -> dict[str, Any]:
    row = line.published
    timed = found if found is not None and found.row.im_s == found.row.im_s else None
    return {
        "im_s": timed.row.im_s if timed else math.nan,
        "im_s_low": timed.row.im_s_low if timed else math.nan,
        "im_s_high": timed.row.im_s_high if timed else math.nan,
        "device": timed.context.get("device") or "" if timed else "",
        "im_s_published": math.nan if row is None else row.throughput_im_s,
        "device_published": getattr(row, "device", ""),
    }
