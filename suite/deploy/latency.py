"""Latency of a service: percentiles of single forwards, batch by batch and runtime by runtime, idle and under load."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from reports.pareto.latency import draw_latency
from reports.text.wording import NO_DATA, significant
from suite.analyse.sheet import Sheet
from suite.contract.baseline import BASELINE
from suite.deploy.load import Times, time_call, time_calls, time_closed_loop
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
UNSTEADY = 1.25
"""So many times the least median of a round, and the largest is called noisy."""


@dataclass(frozen=True)
class Load:
    """calls: timed of each; 100 give a 99th percentile. warm_up: untimed before those of a round. callers: at once; 0:
    no load. Calls are made in rounds, all variants in each, so that all see the same machine."""

    calls: int = 100
    warm_up: int = 5
    callers: int = 0

    @property
    def shares(self) -> list[int]:
        """Calls of each round: five rounds, or as many as have 20 calls."""
        rounds = max(1, min(5, self.calls // 20))
        return [self.calls // rounds + (number < self.calls % rounds) for number in range(rounds)]


@dataclass(eq=False)
class Service:
    """A variant on a batch of one size, ready to be called, and what its calls took, a round after the other.

    first: seconds of the first call. idle, loaded: of one caller and of several at once.
    """

    variant: Variant
    images: Tensor
    first: float = field(init=False)
    idle: list[Times] = field(default_factory=list)
    loaded: list[Times] = field(default_factory=list)

    def call(self) -> None:
        self.variant.forward(self.images)
        synchronize(self.images.device)

    def time_round(self, count: int, load: Load) -> None:
        with torch.inference_mode(), self.variant.running():
            for _ in range(load.warm_up):
                self.call()
            self.idle.append(time_calls(self.call, count))
            if load.callers:
                self.loaded.append(time_closed_loop(self.call, load.callers, count))

    def record(self) -> dict[str, Any]:
        prepared, batch = self.variant.prepared, len(self.images)
        found = {
            "method": self.variant.name, "runtime": self.variant.runtime.name, "batch_size": batch,
            "prepared_s": prepared and prepared.seconds, "first_ms": 1e3 * self.first, **told(self.idle, ""),
        }  # fmt: skip
        return found | (told(self.loaded, "loaded_") if self.loaded else {})


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
    variants = [variant_of(plan, key, labels[key], runtimes[0]) for key in plan.methods]
    variants = [replace(variant, runtime=runtime) for variant in variants for runtime in runtimes]
    records: list[dict[str, Any]] = []
    failed: list[str] = []
    with progress.timing("latency", len(variants) * len(batches)) as advance, ExitStack() as stack:
        for runtime in runtimes:
            stack.enter_context(runtime.hold(len(plan.methods) * len(batches)))
        done, total = 0, len(variants) * len(batches) * (1 + len(load.shares))
        for batch in batches:  # those of one size are held at once: of all sizes they might not fit

            def report(variant: Variant, batch: int = batch) -> None:
                nonlocal done
                advance(done, total, f"{variant.name} {variant.runtime.name} {batch}")
                done += 1

            services = measure_batch(variants, images[:batch], load, report, failed)
            records += [service.record() for service in services]
    names = [variant.name for variant in variants]
    records.sort(key=lambda record: names.index(record["method"]))
    return _sheet(plan, records, failed, load, device_name(device))


def variant_of(plan: Plan, key: str, label: str, runtime: Runtime) -> Variant:
    """What is timed; its name is what a row is called."""
    method = plan.methods[key]
    if method.rate is None:
        reducing = plan.handle(method, None) if method.reducer != BASELINE else None
        return Variant(label, plan.backbone, reducing, runtime)
    rate = plan.rate_of(key, lambda: sample_images(plan, SOLVED_ON))
    return Variant(f"{label} {rate}", plan.backbone, plan.handle(method, rate), runtime)


def measure_batch(
    variants: Sequence[Variant], images: Tensor, load: Load, report: Callable[[Variant], None], failed: list[str]
) -> list[Service]:
    """All variants on one batch, in rounds of drawn order; a variant that fails is named in `failed` and left out."""
    services: list[Service] = []

    def attempt(variant: Variant, work: Callable[[], None]) -> bool:
        report(variant)
        try:
            work()
        except Exception as error:  # whatever a runtime raises is told against it
            failed.append(f"{variant.name} · {variant.runtime.name} · batch {len(images)}: {describe_error(error)}")
            return False
        return True

    def begin(variant: Variant) -> None:
        services.append(make_ready(variant, images))

    for variant in variants:
        attempt(variant, partial(begin, variant))
    draw = random.Random(0)
    for count in load.shares:
        for service in draw.sample(services, len(services)):
            if not attempt(service.variant, partial(service.time_round, count, load)):
                services.remove(service)
    return services


def make_ready(variant: Variant, images: Tensor) -> Service:
    """Prepared, and called once."""
    service = Service(replace(variant, prepared=variant.prepare(images)), images)
    with torch.inference_mode(), service.variant.running():
        service.first = time_call(service.call)
    return service


def told(rounds: Sequence[Times], prefix: str) -> dict[str, Any]:
    """Percentiles in ms of the calls of all rounds, how many a second, and least and largest median of a round."""
    calls = [call for times in rounds for call in times.calls]
    found: dict[str, Any] = {f"{prefix}p{percent}_ms": percentile_ms(calls, percent) for percent in PERCENTILES}
    found[f"{prefix}per_second"] = len(calls) / sum(times.seconds for times in rounds)
    medians = [1e3 * median(times.calls) for times in rounds]
    return found | {f"{prefix}least_ms": min(medians), f"{prefix}largest_ms": max(medians)}


def unsteady(record: Mapping[str, Any]) -> str:
    """What the medians of its rounds came to where they are too far apart to be told from a difference; else ''."""
    least, largest = record["least_ms"], record["largest_ms"]
    if largest <= UNSTEADY * least:
        return ""
    return (
        f"noisy: {record['method']} · {record['runtime']} · batch {record['batch_size']}: medians of its rounds are "
        f"{significant(least, 3)} to {significant(largest, 3)} ms."
    )


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
        "warm_up": load.warm_up, "callers": load.callers, "rounds": len(load.shares),
        "threads": threads, "affinity": cores, "load_average": load_average(),
    }  # fmt: skip
    notes = [
        f"Milliseconds of a call, of {load.calls} in {len(load.shares)} round(s), all rows in each, after "
        f"{load.warm_up} untimed ones there; the first call by itself, after what prepares the model. {NO_DATA}: too "
        f"few calls for that percentile (p99 needs 100). {threads} thread(s), "
        f"may run on cores {', '.join(map(str, cores)) or NO_DATA}; load average {load_average()}."
    ]
    if load.callers:
        notes.append(
            f"{load.callers} callers: each asks again as soon as it was answered (closed loop), one worker answers in "
            "turn; their times include the wait."
        )
    notes += [said for record in records if (said := unsteady(record))]
    notes += [f"failed: {line}." for line in failed]
    title = f"Latency: {plan.spec.model} · {device}"
    return Sheet(
        "latency", title, about, records, ("Method", "Runtime", "Batch", *columns.values()), lines, tuple(notes),
        partial(draw_latency, records, title), failed, names=2,
    )  # fmt: skip


def affinity() -> list[int]:
    """Cores that this process may run on; none where nobody tells."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
