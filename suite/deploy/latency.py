"""Latency of a service: percentiles of single forwards, batch by batch and runtime by runtime, idle and under load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reports.pareto.latency import draw_latency
from reports.text.wording import NO_DATA, significant
from suite.analyse.sheet import Sheet
from suite.contract.baseline import BASELINE
from suite.deploy.load import Times, time_calls, time_closed_loop
from suite.errors import RequestError, describe_error
from suite.measure.machine import device_name, load_average
from suite.measure.runtimes import make_runtimes
from suite.measure.runtimes.base import Runtime
from suite.measure.timing import percentile_ms, synchronize
from suite.measure.variant import Variant
from suite.sweep.engine import SOLVED_ON
from suite.sweep.forecast import method_labels
from suite.sweep.images import sample_images, timing_batch
from suite.sweep.plan import Plan, make_plan, resolve_device
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Load:
    """calls: timed of each; 100 give a 99th percentile. warm_up: untimed before. callers: at once; 0: no load."""

    calls: int = 100
    warm_up: int = 5
    callers: int = 0


def measure_latency(spec: RunSpec, batches: Sequence[int], load: Load, progress: Progress) -> Sheet:
    """Every method and runtime of `spec` beside the unreduced model, at every batch size; float32 as it is.

    RequestError for what cannot be done; what fails is named and the others go on.
    """
    if spec.precision != "fp32":
        raise RequestError(f"--precision {spec.precision}: latency is measured in fp32; leave it out")
    plan = make_plan(spec, scored=False)
    device = resolve_device(spec.device)
    runtimes = make_runtimes(spec.runtime, device)
    plan.model.to(device)
    images = timing_batch(replace(plan, spec=spec.model_copy(update={"batch_size": max(batches)})))
    if images is None:
        raise RequestError("no image can be read, so there is nothing to time")
    images, labels = images.to(device), method_labels(plan.methods)
    records: list[dict[str, Any]] = []
    failed: list[str] = []
    with progress.timing("latency", len(plan.methods) * len(runtimes) * len(batches)) as advance:
        for key in plan.methods:
            name, variant = variant_of(plan, key, labels[key], runtimes[0])
            for runtime in runtimes:
                for batch in batches:
                    advance(len(records), len(plan.methods) * len(runtimes) * len(batches), f"{name} {runtime.name}")
                    try:
                        found = times_of(replace(variant, runtime=runtime), images[:batch], load)
                    except Exception as error:  # whatever a runtime raises is told against it
                        failed.append(f"{name} · {runtime.name} · batch {batch}: {describe_error(error)}")
                        continue
                    records.append({"method": name, "runtime": runtime.name, "batch_size": batch, **found})
    return _sheet(plan, records, failed, load, device_name(device))


def variant_of(plan: Plan, key: str, label: str, runtime: Runtime) -> tuple[str, Variant]:
    """What a row is called, and what is timed."""
    method = plan.methods[key]
    if method.rate is None:
        reducing = plan.handle(method, None) if method.reducer != BASELINE else None
        return label, Variant(label, plan.backbone, reducing, runtime)
    rate = plan.rate_of(key, lambda: sample_images(plan, SOLVED_ON))
    name = f"{label} {rate}"
    return name, Variant(name, plan.backbone, plan.handle(method, rate), runtime)


def times_of(variant: Variant, images: Tensor, load: Load) -> dict[str, Any]:
    """Milliseconds of one variant on one batch, without load and, if asked for, with it."""
    prepared = variant.prepare(images)
    variant = replace(variant, prepared=prepared)

    def call() -> None:
        variant.forward(images)
        synchronize(images.device)

    with torch.inference_mode(), variant.running():
        alone = time_calls(call, load.warm_up, load.calls)
        queued = time_closed_loop(call, load.callers, load.calls) if load.callers else None
    found = {"prepared_s": prepared.seconds, "first_ms": 1e3 * alone.first, **percentiles(alone, "")}
    found["per_second"] = alone.per_second
    if queued is not None:
        found |= {**percentiles(queued, "loaded_"), "loaded_per_second": queued.per_second}
    return found


def percentiles(times: Times, prefix: str) -> dict[str, float | None]:
    return {f"{prefix}p{percent}_ms": percentile_ms(times.calls, percent) for percent in PERCENTILES}


def _sheet(plan: Plan, records: list[dict[str, Any]], failed: list[str], load: Load, device: str) -> Sheet:
    columns = {"first_ms": "First call", **{f"p{p}_ms": f"p{p}" for p in PERCENTILES}, "per_second": "Calls/s"}
    if load.callers:
        columns |= {f"loaded_p{p}_ms": f"p{p}, {load.callers} callers" for p in PERCENTILES}
        columns["loaded_per_second"] = f"Calls/s, {load.callers} callers"
    lines = [
        [
            record["method"], record["runtime"], str(record["batch_size"]),
            *(NO_DATA if record[name] is None else significant(record[name], 3) for name in columns),
        ]
        for record in records
    ]  # fmt: skip
    threads, cores = torch.get_num_threads(), affinity()
    about = {
        "model": plan.spec.model, "device": device, "precision": plan.spec.precision, "calls": load.calls,
        "warm_up": load.warm_up, "callers": load.callers, "threads": threads, "affinity": cores,
        "load_average": load_average(),
    }  # fmt: skip
    notes = [
        f"Milliseconds of a call, of {load.calls} after {load.warm_up} untimed ones; the first call by itself, after "
        f"what prepares the model. {NO_DATA}: too few calls for that percentile (p99 needs 100). {threads} thread(s), "
        f"may run on cores {', '.join(map(str, cores)) or NO_DATA}; load average {load_average()}."
    ]
    if load.callers:
        notes.append(
            f"{load.callers} callers: each asks again as soon as it was answered (closed loop), one worker answers in "
            "turn; their times include the wait."
        )
    notes += [f"failed: {line}." for line in failed]
    title = f"Latency: {plan.spec.model} · {device}"
    return Sheet(
        "latency", title, about, records, ("Method", "Runtime", "Batch", *columns.values()), lines, tuple(notes),
        partial(draw_latency, records, title), failed, names=2,
    )  # fmt: skip


def affinity() -> list[int]:
    """Cores that this process may run on; none where nobody tells."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
