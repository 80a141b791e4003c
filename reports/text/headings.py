"""What stands above and below a table or plot: which cells these are, and how to read them rightly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reports.groups import Group, labels_of
from reports.marks.oracle import DEFINED
from reports.text.wording import NO_DATA, is_untrained, known, percent, reducer_label, row_label
from reports.traces import trace_notes
from suite.contract.baseline import BASELINE
from suite.contract.metric import Metric

RANDOM_WEIGHTS = "random weights: scores are meaningless"
DISPUTED, UNCOUNTED, REMARK, AT_CHANCE, DOMINATED = "†", "‡", "§", "¶", "‖"


def images(group: Group) -> str:
    """How many samples the finished rows rest on: 'n = 1000', or '997 of 1000 images' if some are missing."""
    done = group.frame[group.frame.status == "done"]
    counts = sorted(set(zip(done.samples, done.expected, strict=True)), reverse=True)
    said = [f"n = {n}" if n == expected else f"{n} of {expected} images" for n, expected in counts]
    return ", ".join(said) or f"n = {NO_DATA}"


def title(group: Group) -> str:
    """Task, model, weights, number of images and, for dense tasks, when tokens are restored."""
    weights = "random weights" if group.random_weights else f"weights {group.weights}"
    size = [f"{group.image_size} px"] if group.image_size else []
    restored = [f"tokens restored {group.restore.replace('_', ' ')}"] if group.restore else []
    return " · ".join([group.task, group.model, weights, images(group), *size, *restored])


def titles(parts: Sequence[Group]) -> list[str]:
    """The title of each of several groups, with its label where titles alone do not tell them apart."""
    plain = [title(part) for part in parts]
    if len(set(plain)) == len(plain):
        return plain
    return [f"{label}: {text}" for label, text in zip(labels_of(parts), plain, strict=True)]


def once_each(said: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Lines of several groups, (label, lines) each: every line once, with whose it is where not all groups have it."""
    groups, whose = list(said), dict[str, list[str]]()
    for label, lines in groups:
        for line in dict.fromkeys(lines):
            whose.setdefault(line, []).append(label)
    return [line if len(of) == len(groups) else f"{', '.join(of)}: {line}" for line, of in whose.items()]


def circumstances(group: Group, whole: bool = False) -> str:
    """Where and how speed was measured, with the spread of the unreduced model against itself.

    whole: the speed of the whole model, not of its backbone.
    """
    if not group.frame["whole_s" if whole else "im_s"].notna().any():
        return "speed not measured"
    batches = group.seen("timed_batch_size", whole) or [group.batch_size]
    parts = [" / ".join(map(str, group.seen("device", whole))) or f"device {NO_DATA}"]
    parts += [f"batch size {', '.join(map(str, batches))}", group.precision]
    parts += group.seen("runtime", whole)
    parts += [f"TF32 {of}" for of in group.seen("tf32", whole) if group.precision in ("fp32", "tf32")]
    lows, highs = group.seen("aa_low", whole), group.seen("aa_high", whole)
    spread = f"{min(lows):.3f}–{max(highs):.3f}" if lows and highs else NO_DATA
    return " · ".join([*parts, f"A/A {spread}"])


def notes(group: Group) -> list[str]:
    """What a reader must know to read the group's table rightly, one sentence each."""
    rows = list(group.frame.itertuples())
    meaningless = f"Warning: {RANDOM_WEIGHTS} and not shown; agreement is the share of images on which the prediction "
    said = [meaningless + "is that of the unreduced model."] if group.random_weights else []
    of_part = f" (of the {group.shown.part})" if group.shown.throughput else ""
    said.append(
        "± half of the 95 % interval, or [the interval]: over the samples for scores, over the rounds for speed. "
        f"1 FLOP = 1 multiply-add{of_part}; overhead: share of the FLOPs that the reducer itself adds."
    )
    if group.shown.throughput:
        said.append(
            f"{group.shown.throughput} and speed-up: the whole model ({circumstances(group, whole=True)}); "
            f"{group.shown.remark}."
        )
    if group.shown.first and group.frame["whole_first_s"].notna().any():
        said.append(
            f"{group.shown.first}: of the first batch with the method, in a process that had run the unreduced model "
            f"on one sample before; the following ones are what {group.shown.throughput} says."
        )
    said += _chance_notes(rows, group.shown.metrics[0])
    said += _score_notes(rows, group)
    if group.frame[group.frame.status == "done"].missing.any():
        said.append(f"Unreadable images are left out: {images(group)}.")
    said += _dominated(rows)
    said += _beside_headline(rows)
    said += _method_notes(rows, group.context)
    said += _runtime_notes(rows)
    elsewhere = {speed["device"] for about in group.context for speed in about.get("speeds", ())}
    if others := sorted(elsewhere.difference(group.seen("device"), [""])):
        said.append(f"Also timed on {', '.join(others)}, which stands apart in speed.md.")
    disputed = [row_label(row) for row in rows if known(row.disputed) and row.disputed]
    if disputed:
        said.append(f"{DISPUTED} FLOPs disputed, the counters differ by more than 0.5 %: {', '.join(disputed)}.")
    said += _untraced(rows, group.context)
    part = f" of the {group.shown.part}" if group.shown.throughput else ""
    said += trace_notes([row_label(row) for row in rows], [about.get("trace") for about in group.context], part)
    said += [f"{UNCOUNTED} not counted in the FLOPs of {name}: {ops}." for name, ops in _uncounted(rows)]
    timed = {"speed": ("im_s", "speed_note")}
    timed |= {group.shown.throughput: ("whole_s", "whole_note")} if group.shown.throughput else {}
    for what, columns in timed.items():
        said += [f"{REMARK} {what} {remark}: {names}." for remark, names in _remarks(rows, *columns)]
    said += [
        f"{row_label(row)} is not finished: {row.samples} of {row.expected} images scored; n/a until it is."
        + (f" {row.reason}" if row.reason else "")
        for row in rows
        if row.status == "running"
    ]
    said += [f"{row_label(row)} failed: {' '.join(row.reason.split())}" for row in rows if row.status == "failed"]
    return said


def is_at_chance(row: Any, metric: Metric) -> bool:
    """Whether a score cannot be told from what guessing comes to, or lies below it."""
    low = getattr(row, f"{metric.name}_low")
    return known(row.chance) and known(low) and low <= row.chance


def _chance_notes(rows: list[Any], metric: Metric) -> list[str]:
    """Rows that are no better than guessing; where the unreduced model is not, the labels are what to look at."""
    marked = [row for row in rows if is_at_chance(row, metric)]
    if not marked:
        return []
    plain = {row.reducer for row in rows if known(getattr(row, metric.name))} - {row.reducer for row in marked}
    question = "" if BASELINE in plain else ": are labels in the model's order?"
    return [f"{AT_CHANCE} at chance{question} ({', '.join(map(row_label, marked))})."]


def _score_notes(rows: list[Any], group: Group) -> list[str]:
    """Metrics that have no value and why, and what the scores come with."""
    labels = {metric.name: metric.label for metric in group.shown.metrics if not metric.hidden}
    seen: dict[str, list[str]] = {}
    for row, about in zip(rows, group.context, strict=True):
        reasons = about.get("reasons", {}).items()
        absent = [f"{labels[name]} is {NO_DATA}: {reason}" for name, reason in reasons if name in labels]
        for said in (*absent, *about.get("notes", ())):
            seen.setdefault(said, []).append(row_label(row))
    done = sum(1 for row in rows if row.status == "done")
    return [f"{said}." if len(on) >= done else f"{said} ({', '.join(on)})." for said, on in seen.items()]


def _dominated(rows: list[Any]) -> list[str]:
    """How many methods at rates are dominated by a floor, by FLOPs and by time, and which by which."""
    said = []
    for cost, column in (("FLOPs", "dominated_flops"), ("time, by intervals that do not meet", "dominated_time")):
        compared = [(row, getattr(row, column)) for row in rows if known(getattr(row, column))]
        by = [f"{row_label(row)} by {floor}" for row, floor in compared if floor]
        named = f" ({', '.join(by)})" if by else ""
        said += [f"{len(by)} of {len(compared)} by {cost}{named}"] if compared else []
    if not said:
        return []
    return [
        f"{DOMINATED} dominated by a floor, significantly worse at no lower cost (paired one-sided tests at 5 %, "
        f"Holm's procedure over all), of the methods at rates that have a floor at their cost: {'; '.join(said)}."
    ]


def _beside_headline(rows: list[Any]) -> list[str]:
    """What the numbers of other seeds and of the best rate for every image are."""
    said = []
    if any(known(row.seeds) for row in rows):
        said.append(
            "Over seeds: mean over random draws of the method, or over trainings that differ in the seed alone (how "
            "many), ± half of Student's 95 % interval from three on; the row itself is the first of them."
        )
    if any(known(row.oracle) for row in rows):
        said.append(
            f"Oracle: {DEFINED}; their mean GFLOPs. It knows the answer, so that no choice by the image surpasses it."
        )
    return said


def _method_notes(rows: list[Any], context: list[dict[str, Any]]) -> list[str]:
    """What was learned, formulated or averaged for some of the rows, and targets that no rate meets."""
    said = []
    untrained = [f"{_name(row)} ({row.training.split(' ', 1)[1]})" for row in rows if is_untrained(row.training)]
    if untrained:
        listed = ", ".join(dict.fromkeys(untrained))
        said.append(f"Untrained, so only their cost and speed are the method's (give --reducer-weights): {listed}.")
    trained = [f"{_name(row)} {row.training}" for row in rows if row.training.startswith("trained: ")]
    said += [f"{name}." for name in dict.fromkeys(trained)]
    said += dict.fromkeys(f"Attention of {_name(row)} as run: {row.formulation}." for row in rows if row.formulation)
    paired = list(zip(rows, context, strict=True))
    depends = [(_name(row), about.get("flops_images")) for row, about in paired if known(row.gmacs_p5)]
    said += [
        f"FLOPs and tokens of {name} depend on the image: mean [5th, 95th percentile] over {count or NO_DATA} images."
        for name, count in dict.fromkeys(depends)
    ]
    for row, about in paired:
        gives = [f"{rate} gives {percent(reduction)} %" for rate, reduction in about.get("neighbours", ())]
        said += [f"{row_label(row)} cannot be met: {', '.join(gives)}."] if gives else []
    return said


def _runtime_notes(rows: list[Any]) -> list[str]:
    """How the unreduced model runs fastest, where that is not how the rows ran; kernels of attention that differ."""
    said = [
        f"Speed-up is over the unreduced model {row.runtime} as well; it is faster {row.fastest_runtime}, and against "
        "the fastest is over that."
        for row in rows
        if row.fastest_runtime not in ("", row.runtime)
    ]
    kernels: dict[str, list[str]] = {}
    for row in rows:
        if row.attention:
            kernels.setdefault(row.attention, []).append(_name(row))
    if len(kernels) > 1:
        listed = "; ".join(f"{attention}: {', '.join(dict.fromkeys(on))}" for attention, on in kernels.items())
        said.append(f"Attention, its kernels chosen by PyTorch for all alike: {listed}.")
    return list(dict.fromkeys(said))


def _name(row: Any) -> str:
    return reducer_label(row.reducer, row.options)


def _untraced(rows: list[Any], context: list[dict[str, Any]]) -> list[str]:
    """Rows whose FLOPs one counter alone knows; one sentence for all that share the reason."""
    seen: dict[str, list[str]] = {}
    for row, about in zip(rows, context, strict=True):
        if about.get("untraced"):
            seen.setdefault(about["untraced"], []).append(row_label(row))
    return [
        f"FLOPs counted as dispatched (torch.utils.flop_counter), as the forward cannot be traced: {', '.join(on)} "
        f"({reason})."
        for reason, on in seen.items()
    ]


def _uncounted(rows: Iterable[Any]) -> list[tuple[str, str]]:
    """(reducer, its uncounted operations at any rate), in the rows' order."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        if known(row.uncounted) and row.uncounted:
            seen.setdefault(row.reducer, set()).update(op.split(" ×")[0] for op in row.uncounted.split(", "))
    return [(reducer, ", ".join(sorted(ops))) for reducer, ops in seen.items()]


def _remarks(rows: list[Any], pace: str, note: str) -> list[tuple[str, str]]:
    """(remark on a speed, the rows that it is on), each remark once."""
    seen: dict[str, list[str]] = {}
    for row in rows:
        for remark in filter(None, getattr(row, note).split("; ")):
            seen.setdefault(remark, []).append(row_label(row))
    timed = sum(1 for row in rows if known(getattr(row, pace)))
    if "noisy" in seen:
        seen["noisy, do not rank by it (see the A/A spread)"] = seen.pop("noisy")
    return [(remark, "all rows" if len(on) >= timed > 1 else ", ".join(on)) for remark, on in seen.items()]
