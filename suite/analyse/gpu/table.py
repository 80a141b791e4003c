"""A session as a table: measured and predicted each in columns of their own, and what a forward launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from reports.text.wording import NO_DATA, rate_label, ratio, significant
from suite.contract.baseline import BASELINE
from suite.measure.prediction.fitted import COVERED
from suite.measure.prediction.gpus import GIGA, GPUS

NAMES = ("Model", "Runtime", "Method", "Rate")
HEADERS = (
    *NAMES, "im/s", "Speed-up", "Efficiency", "GB", "predicted im/s", "predicted speed-up", "predicted efficiency",
    "predicted to bind", "launches", "GB moved",
)  # fmt: skip


def lines_of(content: Mapping[str, Any]) -> list[list[str]]:
    """A line a cell, in the order of the stages, of which each begins with the unreduced model, once for all groups."""

    def stage(cell: Mapping[str, Any]) -> tuple[str, str]:
        return cell["model"], cell["runtime"]

    order = list(dict.fromkeys(map(stage, content["cells"])))
    cells = sorted(content["cells"], key=lambda cell: order.index(stage(cell)))
    lines = []
    for _, group in groupby(cells, key=stage):
        every = list(group)
        plain = [cell for cell in every if cell["method"] == BASELINE]
        lines.append(line_of(plain[0], middle([cell["measured"]["im_s"] for cell in plain])))
        lines += [line_of(cell, (cell["measured"] or {}).get("im_s")) for cell in every if cell["method"] != BASELINE]
    return lines


def middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def line_of(cell: Mapping[str, Any], im_s: float | None) -> list[str]:
    measured, predicted, trace = cell["measured"] or {}, cell["predicted"], cell["trace"] or {}
    speedup = None if cell["method"] == BASELINE else measured.get("speedup")
    known = speedup is not None and cell["flops_ratio"] is not None
    peak, moved = measured.get("peak_memory_bytes"), trace.get("moved")
    return [
        cell["model"], cell["runtime"], cell["method"], rate_label(cell["target"], cell["rate"]),
        significant(im_s, 3),
        ratio(speedup, measured.get("speedup_low"), measured.get("speedup_high")),
        significant(speedup * cell["flops_ratio"] if known else None, 3),
        significant(None if peak is None else peak / GIGA, 3),
        significant(predicted["im_s"], 3),
        ratio(*(predicted[key] for key in ("speedup", "speedup_low", "speedup_high"))),
        significant(predicted["efficiency"], 3),
        predicted["binds"] or NO_DATA,
        str(trace.get("launches", NO_DATA)), significant(None if moved is None else moved / GIGA, 3),
    ]  # fmt: skip


def notes_of(content: Mapping[str, Any]) -> list[str]:
    """How to read the table, and what is not in it and why."""
    trial, gpu = content["trial"], content["gpu"]
    notes = [
        f"{trial['precision']}, batch {trial['batch_size']}, random weights, {trial['rounds']} rounds of at least "
        f"{trial['block_s']:g} s beside the unreduced model; {content['took'] / 60:.1f} minutes.",
        "Speed-up: over the unreduced model under the same runtime. Efficiency: speed-up over the ratio of FLOPs. "
        "Launches and bytes are counted from shapes, eager, not measured.",
    ]
    if (apart := apart_from_itself(content)) is not None:
        notes.append(
            f"The unreduced model against itself, in the same rounds: 95 % within ±{apart:.1%} (median group)."
        )
    if gpu is None:
        notes.append(f"Nothing is predicted: no data sheet is known to be of {content['device']}; --gpu names one.")
    else:
        notes.append(
            f"Predicted for {GPUS[gpu].title}, by the fit of {content['fitted']}; [ ]: {COVERED:.0%} of published "
            "speeds were that near. Under graphs the GPU's time alone; what is compiled is not predicted."
        )
    reasons: dict[str, list[str]] = {}
    for cell in content["cells"]:
        if cell["reason"]:
            name = " ".join(filter(None, (cell["model"], cell["runtime"], cell["method"], cell["target"])))
            reasons.setdefault(cell["reason"], []).append(name)
    notes += [f"Not measured: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    for stage in content["left_out"]:
        targets = dict.fromkeys(cell["target"] for cell in stage["cells"])
        named = {target: [cell["method"] for cell in stage["cells"] if cell["target"] == target] for target in targets}
        said = "; ".join(f"{target}: {', '.join(methods)}" for target, methods in named.items())
        notes.append(f"Left out, the time was up: {stage['model']} {stage['runtime']}: {said}")
    return notes


def apart_from_itself(content: Mapping[str, Any]) -> float | None:
    """How far the A/A interval reaches from 1, in the middle of all groups; None where there is none."""
    plain = [cell["measured"] for cell in content["cells"] if cell["method"] == BASELINE]
    return middle([max(1 - one["aa_low"], one["aa_high"] - 1) for one in plain if one["aa_low"] is not None])
