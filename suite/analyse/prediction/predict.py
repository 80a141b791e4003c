"""Every method at every rate on every GPU, predicted from shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reports.text.wording import NO_DATA, percent, rate_label, ratio, significant, spread
from suite.analyse.prediction.figure import draw_fit
from suite.analyse.sheet import Sheet
from suite.contract.baseline import BASELINE
from suite.errors import UNREACHED, CellError, RequestError
from suite.measure.kernels import Trace
from suite.measure.prediction.cost import BOUNDS, HOST, predict_forward
from suite.measure.prediction.fitted import COVERED, Band, load_fit
from suite.measure.prediction.gpus import GIGA, GPUS, find_gpu
from suite.measure.prediction.shapes import Implementation, TracedModel
from suite.models.load import check_model_name
from suite.rates.rate import FlopsTarget, Rate, rate_text
from suite.reducers.base import Reducer
from suite.sweep.cells import expand
from suite.sweep.forecast import method_labels
from suite.sweep.methods import MethodAtRate
from suite.sweep.progress import Progress
from suite.sweep.spec import RunSpec

LEAST_SHARE = 0.005  # of the GPU's time that is worth a word
HEADERS = ("GPU", "Batch", "Model", "Method", "Rate", "ms", "im/s", "Speed-up", "Efficiency", "Binds")


@dataclass(frozen=True)
class Work:
    """What one model is to do: a method at a rate at a batch size, and its kernels beside the unreduced model's."""

    model: str
    method: str
    reducer: str
    asked: str
    rate: str
    batch: int
    trace: Trace
    unreduced: Trace


def predict(
    specs: Sequence[RunSpec], gpus: Sequence[str], batches: Sequence[int], tf32: bool, progress: Progress
) -> Sheet:
    """Predicted time, images/s, speed-up and efficiency, with error bands, and what binds.

    specs: one a model; their batch sizes are not read. RequestError for a GPU, a model, a method or a rate that is not
    known. What cannot be predicted is in `Sheet.failed`, and has no data.
    """
    sheets = {gpu: find_gpu(gpu) for gpu in gpus}
    for spec in specs:
        check_model_name(spec.model)
    planned = [(spec, *expand(spec)) for spec in specs]
    failed: list[str] = []
    skipped = [line for _, _, left in planned for line in left]
    work: list[Work] = []
    for spec, methods, _ in planned:
        work += list(traced(spec, methods, batches, failed, skipped, progress))
    precision, records, lines = specs[0].precision, [], []
    for gpu in gpus:
        try:
            units = sheets[gpu].units(precision, tf32)
        except RequestError as error:
            failed.append(str(error))
            units = None
        for one in sorted(work, key=lambda one: batches.index(one.batch)):
            record = record_of(one, gpu, units, precision, tf32)
            records.append(record)
            lines.append(line_of(record))
    about = {"precision": precision, "tf32": tf32, "fitted": load_fit().date, "covered": COVERED}
    notes = (*notes_of(records, gpus, precision, tf32), *(f"Left out: {line}" for line in skipped))
    return Sheet(
        "predict", f"Predicted, nothing is measured: {precision} · eager", about, records, HEADERS, lines, notes,
        partial(draw_fit, load_fit().rows), failed, names=5,
    )  # fmt: skip


def traced(
    spec: RunSpec,
    methods: Sequence[MethodAtRate],
    batches: Sequence[int],
    failed: list[str],
    skipped: list[str],
    progress: Progress,
) -> Iterator[Work]:
    """The work of one model, its unreduced forward first; a line in `failed` for what cannot be traced, or in `skipped`
    where nobody named it."""
    model, how = TracedModel(spec.model, spec.image_size), Implementation(spec.precision)
    labels = method_labels({method.slot: method for method in methods})
    for method in progress.steps(f"tracing {spec.model}", methods, name=lambda method: method.reducer):
        reducer, name = None if method.reducer == BASELINE else method.make(), labels[method.slot]
        try:
            rate = resolved(model, reducer, method)
            for batch in batches:
                plain, trace = (model.trace(one, rate, batch, how) for one in (None, reducer))
                yield Work(
                    spec.model, name, method.reducer, rate_text(method.rate), rate_text(rate), batch, trace, plain
                )
        except (CellError, RequestError) as error:
            # a target that is out of reach is a result, as it is to `run`; anything else that was named is refused
            if isinstance(error, RequestError) and method.named and UNREACHED not in str(error):
                raise
            (failed if method.named else skipped).append(f"{spec.model}, {name} {rate_text(method.rate)}: {error}")


def resolved(model: TracedModel, reducer: Reducer | None, method: MethodAtRate) -> Rate | None:
    if reducer is None or not isinstance(method.rate, FlopsTarget):
        return method.rate
    return model.solve(reducer, method.rate)


def record_of(work: Work, gpu: str, units: str | None, precision: str, tf32: bool) -> dict[str, Any]:
    """units: see `Gpu.units`; None of a GPU that has not the precision. There is no data of it then, nor where tensors
    and weights are larger than the GPU's memory.

    Speeds that the CPU decides have no band: no published speed that names its GPU is of that kind.
    """
    record: dict[str, Any] = {
        "gpu": gpu, "batch_size": work.batch, "model": work.model, "method": work.method, "reducer": work.reducer,
        "rate": work.asked, "resolved_rate": work.rate, "launches": work.trace.launches, "bytes": work.trace.moved,
        "macs": work.trace.macs, "flops_ratio": work.trace.macs / work.unreduced.macs,
        "peak_gb": work.trace.peak / GIGA,
        **dict.fromkeys(f"predicted_{name}" for name in ("ms", "gpu_ms", "host_ms", "im_s", "speedup", "efficiency")),
        **dict.fromkeys(f"{name}_{end}" for name in ("im_s", "speedup", "efficiency") for end in ("low", "high")),
        "binds": None, **dict.fromkeys(f"share_{bound}" for bound in BOUNDS), "checked": None,
    }  # fmt: skip
    if units is None or not fits(record):
        return record
    fit = load_fit()
    roofline = fit.reach.roofline(GPUS[gpu], precision, tf32)
    forward, plain = (predict_forward(trace, roofline) for trace in (work.trace, work.unreduced))
    speedup = plain.seconds / forward.seconds
    found = {"im_s": work.batch / forward.seconds, "speedup": speedup, "efficiency": speedup * record["flops_ratio"]}
    record |= {
        "predicted_ms": 1e3 * forward.seconds, "predicted_gpu_ms": 1e3 * forward.gpu_s,
        "predicted_host_ms": 1e3 * forward.host_s, **{f"predicted_{name}": value for name, value in found.items()},
        "binds": forward.binds, **{f"share_{bound}": share for bound, share in forward.shares.items()},
        "checked": fit.is_checked(gpu, units),
    }  # fmt: skip
    if HOST not in (forward.binds, plain.binds):
        factor = fit.speed_band(gpu, units).factor
        record |= {"im_s_low": found["im_s"] / factor, "im_s_high": found["im_s"] * factor}
        factor = fit.speedup_band(gpu, units).factor
        for name in ("speedup", "efficiency") if work.reducer != BASELINE else ():
            record |= {f"{name}_low": found[name] / factor, f"{name}_high": found[name] * factor}
    return record


def fits(record: dict[str, Any]) -> bool:
    return record["peak_gb"] <= GPUS[record["gpu"]].memory


def line_of(record: dict[str, Any]) -> list[str]:
    low, high = (significant(record[f"im_s_{end}"], 2) for end in ("low", "high"))
    ratios = [
        ratio(*(record[key] for key in (f"predicted_{name}", f"{name}_low", f"{name}_high")))
        for name in ("speedup", "efficiency")
    ]
    return [
        record["gpu"], str(record["batch_size"]), record["model"], record["method"],
        rate_label(record["rate"], record["resolved_rate"]), significant(record["predicted_ms"], 3),
        spread(significant(record["predicted_im_s"], 3), low, high), *ratios, binding(record),
    ]  # fmt: skip


def binding(record: dict[str, Any]) -> str:
    """What binds and how much of the GPU's time each bound has: 'arithmetic 62 %, bandwidth 37 %, launches 1 %'."""
    if not fits(record):
        return f"does not fit: {record['peak_gb']:.0f} GB of {GPUS[record['gpu']].memory}"
    if record["binds"] is None:
        return NO_DATA
    shares = sorted(((record[f"share_{bound}"], bound) for bound in BOUNDS), reverse=True)
    said = ", ".join(f"{bound} {percent(share, 0)} %" for share, bound in shares if share >= LEAST_SHARE)
    waits = record["predicted_host_ms"] / record["predicted_gpu_ms"]
    return f"{HOST} {waits:.1f} × the GPU: {said}" if record["binds"] == HOST else said


def notes_of(records: Sequence[dict[str, Any]], gpus: Sequence[str], precision: str, tf32: bool) -> list[str]:
    """How the numbers were made, and how sure they are."""
    fit = load_fit()
    notes = [
        "Of our kernels, from shapes and data sheets. Efficiency: speed-up over the ratio of FLOPs, 1 where a method "
        f"costs no time of its own. [ ]: {COVERED:.0%} of published speeds were that near to their predictions, each "
        f"GPU weighing alike; fitted {fit.date}, see `predict --fit`."
    ]
    if precision == "fp32":
        notes.append(f"Products of float32 {'run in TF32' if tf32 else 'do not run in TF32 (--tf32 lets them)'}.")
    for gpu in dict.fromkeys(record["gpu"] for record in records if record["checked"] is not None):
        units = GPUS[gpu].units(precision, tf32)
        notes.append(f"{gpu}: {GPUS[gpu].title}, {said_of(fit.speed_band(gpu, units), fit.speedup_band(gpu, units))}.")
    if any(record["binds"] == HOST for record in records):
        notes.append(
            f"host: the GPU waits for the CPU, which is taken to need {fit.reach.host_us:g} us a launch; 10 to 50 have "
            "been seen, and no published speed that names its GPU checks it, so there is no band. CUDA graphs avoid it."
        )
    return notes


def said_of(speed: Band, speedup: Band) -> str:
    bands = (
        f"im/s within {speed.factor:.2f} × ({speed.errors} speeds {speed.of}), "
        f"speed-ups within {speedup.factor:.2f} × ({speedup.errors} {speedup.of})"
    )
    return bands if speed.checked else f"not checked: no published row names this GPU in such a precision; {bands}"
