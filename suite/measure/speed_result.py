"""What a variant's timed blocks come to, beside those of the unreduced model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from torch import Tensor

from suite.measure.timing import Interval, interval_of, percentile_ms
from suite.measure.variant import Variant

HOST_BOUND = 0.95
QUIET = {"cuda": 0.01}
"""How far the A/A interval may reach from 1; 2 % where it is not said."""


@dataclass(frozen=True)
class SpeedResult:
    """Speed of one cell under one runtime. Without a measurement the numbers are None and `note` says why.

    rounds: per round, images/s of the cell, of the unreduced model beside it under the same runtime, and of that under
    the runtime in which it is fastest, `fastest_runtime`, of those timed in the same rounds. disturbed: the same of
    rounds that were timed again, once, and are not among them. im_s, speedup,
    speedup_fastest (over these two): median over the rounds; low, high: 95 % (`timing.interval_of`). aa: the unreduced
    model against itself. noisy: the A/A interval reaches beyond ±1 % on a GPU, ±2 % on a CPU (or there is none).
    latency: percentiles of `forwards` forwards, see `timing.percentile_ms`. energy_j: joules per image, by the
    counter of the GPU, or of the whole processor. attention: kernels that ran, with their calls; reads_map: the
    method needs whole attention maps, so it cannot have the kernels that make none. tf32: see
    `precision.tf32_setting`, None on other devices. agreement: share of the timed batch that came to the same class
    or caption in an eager forward before all rounds. first_s: seconds of that forward, the first of the batch, where a
    whole is timed. compile_s: seconds that preparing took. host_share: CPU launch time / time of a forward on a GPU.
    """

    device: str
    batch_size: int
    precision: str
    runtime: str
    attention: str | None = None
    reads_map: bool = False
    tf32: str | None = None
    rounds: list[dict[str, float]] = field(default_factory=list)
    disturbed: list[dict[str, float]] = field(default_factory=list)
    im_s: float | None = None
    im_s_low: float | None = None
    im_s_high: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    speedup_fastest: float | None = None
    speedup_fastest_low: float | None = None
    speedup_fastest_high: float | None = None
    fastest_runtime: str | None = None
    aa_low: float | None = None
    aa_high: float | None = None
    noisy: bool = True
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    forwards: int = 0
    energy_j: float | None = None
    peak_memory_bytes: int | None = None
    agreement: float | None = None
    iterations_per_block: int | None = None
    first_s: float | None = None
    compile_s: float | None = None
    host_share: float | None = None
    threads: int | None = None
    load_average: float | None = None
    gpu: dict[str, Any] | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fastest_of(unreduced: Sequence[Variant]) -> Variant | None:
    """The runtime in which the unreduced model took least, by the median of its blocks; None where it ran in none."""
    ran = [variant for variant in unreduced if variant.failed is None]
    return min(ran, key=lambda variant: median(variant.seconds), default=None)


def result_of(
    variant: Variant,
    baseline: Variant,
    fastest: Variant | None,
    images: Tensor,
    shared: dict[str, Any],
    notes: list[str],
) -> SpeedResult:
    """shared: fields that all results of a measurement have in common. notes: what must be known of all of them."""
    failed = variant.failed
    if failed is None and baseline.failed is not None:
        failed = f"the unreduced model has no speed to compare with: {baseline.failed}"
    measured: dict[str, Any] = {
        "runtime": variant.runtime.name,
        "attention": variant.attention,
        "reads_map": variant.reads_map,
        "first_s": variant.first_s,
        "compile_s": variant.prepared.seconds if variant.prepared else None,
        "host_share": variant.host_share,
    }
    if failed is not None or fastest is None:
        return SpeedResult(**shared, **measured, note=failed)
    beside, best = beside_of(baseline.seconds), beside_of(fastest.seconds)
    own = beside if variant is baseline else variant.seconds
    pace = interval_of([len(images) / s for s in own])
    speedup = interval_of([b / s for b, s in zip(beside, own)])
    against = interval_of([b / s for b, s in zip(best, own)])
    aa = interval_of([a / b for a, b in zip(baseline.seconds[::2], baseline.seconds[1::2])])
    if variant.host_share is not None and variant.host_share > HOST_BOUND:
        notes = [*notes, f"host-bound: launching takes {variant.host_share:.0%} of a forward"]
    forwards = [seconds for block in variant.blocks for seconds in block.forwards]
    return SpeedResult(
        **shared,
        **measured,
        rounds=_paces(len(images), own, beside, best),
        disturbed=_disturbed(variant, baseline, fastest, len(images)),
        im_s=pace.median,
        im_s_low=pace.low,
        im_s_high=pace.high,
        speedup=speedup.median,
        speedup_low=speedup.low,
        speedup_high=speedup.high,
        speedup_fastest=against.median,
        speedup_fastest_low=against.low,
        speedup_fastest_high=against.high,
        fastest_runtime=fastest.runtime.name,
        aa_low=aa.low,
        aa_high=aa.high,
        noisy=is_noisy(aa, QUIET.get(images.device.type, 0.02)),
        latency_p50_ms=percentile_ms(forwards, 50),
        latency_p90_ms=percentile_ms(forwards, 90),
        latency_p99_ms=percentile_ms(forwards, 99),
        forwards=len(forwards),
        energy_j=energy_per_image(variant, len(images)),
        peak_memory_bytes=variant.peak_memory(images),
        agreement=agreement_of(variant.expected, variant.output),
        iterations_per_block=variant.iterations,
        note="; ".join(dict.fromkeys([*notes, *variant.notes])) or None,
    )


def beside_of(seconds: Sequence[float]) -> list[float]:
    """Seconds per forward of the unreduced model, round by round: the mean of the two blocks it has in each."""
    return [(first + last) / 2 for first, last in zip(seconds[::2], seconds[1::2])]


def _disturbed(variant: Variant, baseline: Variant, fastest: Variant, batch: int) -> list[dict[str, float]]:
    beside, best = ([block.seconds for block in of.disturbed] for of in (baseline, fastest))
    own = [block.seconds for block in variant.disturbed]
    return _paces(batch, beside_of(own) if variant is baseline else own, beside_of(beside), beside_of(best))


def _paces(batch: int, own: Sequence[float], beside: Sequence[float], best: Sequence[float]) -> list[dict[str, float]]:
    return [
        {"im_s": batch / s, "baseline_im_s": batch / b, "fastest_im_s": batch / f} for s, b, f in zip(own, beside, best)
    ]


def is_noisy(aa: Interval, tolerance: float) -> bool:
    return aa.low is None or aa.high is None or aa.low < 1 - tolerance or aa.high > 1 + tolerance


def energy_per_image(variant: Variant, batch_size: int) -> float | None:
    """Joules; None unless every block knows what it used."""
    used = [block.joules for block in variant.blocks if block.joules is not None]
    launched = sum(block.launched for block in variant.blocks)
    return sum(used) / launched / batch_size if used and len(used) == len(variant.blocks) else None


def agreement_of(expected: list[Any] | None, timed: list[Any] | None) -> float | None:
    if not expected or timed is None:
        return None
    return sum(a == b for a, b in zip(expected, timed, strict=True)) / len(expected)
