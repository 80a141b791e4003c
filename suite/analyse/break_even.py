"""From which batch size on a reducer pays on this device: its speed beside the unreduced model's, size by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from reports.pareto.batch_speed import SpeedUp, break_even, draw_batch_speed
from reports.text.wording import rate_label, ratio
from suite.analyse.sheet import Sheet
from suite.attachment.handle import Handle
from suite.contract.baseline import BASELINE
from suite.errors import RequestError
from suite.measure.machine import device_name
from suite.measure.speed import SpeedResult, measure_speed
from suite.rates.rate import rate_text, stored_rate
from suite.store.files import read_json, write_json
from suite.sweep.engine import SOLVED_ON
from suite.sweep.forecast import method_labels
from suite.sweep.images import sample_images, timing_batch
from suite.sweep.plan import Plan, make_plan, resolve_device, source_of_runtime
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec

FILE = "timings.json"


def find_break_even(
    spec: RunSpec, batches: Sequence[int], out: Path, progress: Progress, min_block_s: float | None = None
) -> Sheet:
    """Time every method and rate of `spec` at every batch size, and say from which size on it is faster.

    What is timed is the backbone. spec: its batch_size is not read. out: what lies there is not measured again; every
    size is stored as soon as it is timed. min_block_s: seconds that a timed block and the warm-up last at least; None:
    those of `measure_speed`.

    Raises:
        RequestError: what is asked cannot be done, no image can be read, or `out` holds timings of another device.
    """
    if len(spec.runtime) > 1:
        raise RequestError(f"--runtime {','.join(spec.runtime)}: batch sizes are compared under one; name one of them")
    plan = make_plan(spec, scored=False)
    for line in plan.skipped:
        progress.note(f"left out: {line}")
    device = resolve_device(spec.device)
    stored = _stored(out, device_name(device))
    names, handles = _prepared(plan, stored)
    write_json(out / FILE, stored)
    plan.model.to(device)
    images = timing_batch(replace(plan, spec=spec.model_copy(update={"batch_size": max(batches)})))
    if images is None:
        raise RequestError("no image can be read, so there is nothing to time")
    for batch in sorted(set(batches)):
        todo = {key: handle for key, handle in handles.items() if str(batch) not in stored["cells"][key]["batches"]}
        if not todo:
            continue
        with progress.timing(f"batch size {batch}", len(todo) + 1) as advance:
            found = measure_speed(
                plan.model, images[:batch].to(device), todo, precision=spec.precision, runtime=spec.runtime[0],
                rounds=spec.speed_rounds, min_block_s=min_block_s, warmup_s=min_block_s, progress=advance,
            )  # fmt: skip
        for key in todo:
            stored["cells"][key]["batches"][str(batch)] = found[key].as_dict()
        write_json(out / FILE, stored)
    return _sheet(plan, stored, names, sorted(set(batches)))


def _stored(out: Path, device: str) -> dict[str, Any]:
    """What was timed before. RequestError if that was on another device."""
    stored = read_json(out / FILE) or {"device": device, "cells": {}}
    if stored["device"] != device:
        raise RequestError(
            f"{str(out)!r} holds timings of {stored['device']!r}, this is {device!r}; give another --out"
        )
    return stored


def _prepared(plan: Plan, stored: dict[str, Any]) -> tuple[dict[str, str], dict[str, Handle]]:
    """Names and handles of the methods by keys that change with whatever changes the numbers."""
    names, handles = {}, {}
    how = f"{plan.spec.runtime[0]}-{source_of_runtime(plan.spec.runtime[0])[:8]}"  # decides no key of a plan's
    labels = {f"{planned}-{how}": label for planned, label in method_labels(plan.methods).items()}
    for planned, method in plan.methods.items():
        if method.reducer == BASELINE:
            continue
        key = f"{planned}-{how}"
        cell = stored["cells"].setdefault(
            key, {"reducer": method.reducer, "rate": rate_text(method.rate), "batches": {}}
        )
        if "resolved_rate" not in cell:
            cell["resolved_rate"] = rate_text(plan.rate_of(planned, lambda: sample_images(plan, SOLVED_ON)))
        names[key] = f"{labels[key]} {cell['resolved_rate']}".strip()
        handles[key] = plan.handle(method, stored_rate(cell["resolved_rate"]))
    if not handles:
        raise RequestError("--reducers: no method is left to be timed; name some, such as --reducers tome,evit")
    if len(set(names.values())) < len(names):  # two targets may come to the same rate
        names = {
            key: f"{labels[key]} {rate_label(stored['cells'][key]['rate'], stored['cells'][key]['resolved_rate'])}"
            for key in names
        }
    return names, handles


def _sheet(plan: Plan, stored: dict[str, Any], names: Mapping[str, str], batches: Sequence[int]) -> Sheet:
    spec = plan.spec
    timed = {key: {b: SpeedResult(**stored["cells"][key]["batches"][str(b)]) for b in batches} for key in names}
    curves = {
        names[key]: [
            SpeedUp(b, one.speedup, one.speedup_low, one.speedup_high, one.noisy and one.aa_low is not None)
            for b, one in of.items()
        ]
        for key, of in timed.items()
    }
    verdicts = {name: break_even(points) for name, points in curves.items()}
    records = [
        {
            "method": names[key], "reducer": stored["cells"][key]["reducer"], "rate": stored["cells"][key]["rate"],
            "batch_size": batch, "break_even": verdicts[names[key]].batch, "verdict": verdicts[names[key]].text,
            **{name: getattr(one, name) for name in ("speedup", "speedup_low", "speedup_high", "im_s")},
            **{name: getattr(one, name) for name in ("aa_low", "aa_high", "noisy", "note")},
        }
        for key, of in timed.items()
        for batch, one in of.items()
    ]  # fmt: skip
    lines = [
        [str(b), *(ratio(of[b].speedup, of[b].speedup_low, of[b].speedup_high) for of in timed.values())]
        for b in batches
    ]
    lines.append(["pays from", *(verdict.text for verdict in verdicts.values())])
    how = f"{spec.precision} · {spec.runtime[0]}"
    title = f"{spec.model} · {how}\n{stored['device']}"
    reducers = {names[key]: stored["cells"][key]["reducer"] for key in names}
    about = {
        "model": spec.model, "device": stored["device"], "precision": spec.precision, "runtime": spec.runtime[0],
        "rounds": spec.speed_rounds, "pays_from": {name: verdict.batch for name, verdict in verdicts.items()},
    }  # fmt: skip
    return Sheet(
        "break_even", f"Break-even batch size: {spec.model} · {stored['device']} · {how}", about, records,
        ("Batch size", *names.values()), lines, _notes(timed, names),
        partial(draw_batch_speed, curves, reducers, f"{title} · ○ pays from here on"),
    )  # fmt: skip


def _notes(timed: Mapping[str, Mapping[int, SpeedResult]], names: Mapping[str, str]) -> tuple[str, ...]:
    """How the numbers were made, where the machine was noisy, and what could not be timed or must be known of it."""
    notes = [
        "Speed-up over the unreduced model: median of the rounds, each of which times all methods beside it, [95 % "
        "interval]. A method pays from the smallest size at which, and at all larger ones, the interval is above 1."
    ]
    noisy = {batch: one for of in timed.values() for batch, one in of.items() if one.noisy and one.aa_low is not None}
    if noisy:
        lows = [one.aa_low for one in noisy.values() if one.aa_low is not None]
        highs = [one.aa_high for one in noisy.values() if one.aa_high is not None]
        spread = f"{min(lows):.3f}–{max(highs):.3f}"
        sizes = ", ".join(str(batch) for batch in sorted(noisy))
        notes.append(f"Noisy at {sizes}: the unreduced model against itself came to {spread}.")
    said: dict[str, list[str]] = {}
    for key, of in timed.items():
        for batch, one in of.items():
            if one.note:
                said.setdefault(one.note, []).append(f"{names[key]} at {batch}")
    return (*notes, *(f"{note}: {', '.join(on)}." for note, on in said.items()))
