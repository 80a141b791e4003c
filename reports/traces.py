"""A cell's trace: what its forward would launch on a GPU, as columns, as a note, and as one sentence on what binds it.

Traced is not measured, and the sentence is predicted from the trace by a model of one GPU; both say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from suite.measure.kernels import Trace
from suite.measure.roofline import Roofline

MEGA, MEBI = 1e6, 2**20
MORE_BYTES = 1.1  # of what the FLOPs let expect; less is not worth a reader's time
BATCHES = [1 << power for power in range(17)]  # images


def columns_of_trace(stored: dict[str, Any] | None) -> dict[str, float | None]:
    """Of a stored kernels.json: launches and host reads of a forward, bytes an image, peak of the whole batch."""
    if stored is None or stored["traced"] is None:
        return {}
    sums = stored["traced"]
    return {
        "launches": sums["launches"],
        "extra_launches": extra_launches(stored),
        "moved_mb": sums["moved"] / stored["batch_size"] / MEGA,
        "host_reads": sums["host_reads"],
        "traced_peak_mib": sums["peak"] / MEBI,
    }


def extra_launches(stored: dict[str, Any]) -> float | None:
    """Launches of a reducing block beyond the unreduced one's; None where none reduces."""
    more = stored["traced"]["launches"] - stored["unreduced"]["launches"]
    return more / stored["blocks"] if stored["blocks"] else None


def circumstances_of_trace(stored: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a cell was traced on, and why it has no trace; None where nothing is stored."""
    return stored and {name: stored[name] for name in ("batch_size", "precision", "on", "reason")}


def trace_notes(labels: list[str], circumstances: list[dict[str, Any] | None], part: str = "") -> Iterator[str]:
    """How the traces of cells, by their labels, are to be read. part: of the model, such as ' of the encoder'."""
    known = [(label, about) for label, about in zip(labels, circumstances, strict=True) if about]
    traced = [(label, about) for label, about in known if not about["reason"]]
    for size, precision in sorted({(of["batch_size"], of["precision"]) for _, of in traced if of["on"] == "shapes"}):
        yield (
            f"Launches, MB/image (bytes that kernels read and write) and host reads are traced, not measured: of one "
            f"eager forward{part} on {size} images in {precision} on a GPU, counted from shapes."
        )
    for label, about in traced:
        if about["on"] == "images":
            size = about["batch_size"]
            yield f"{label} is traced on {size} of the run's images in one batch: what it launches depends on them."
    for label, about in known:
        if about["reason"]:
            yield f"{label} has no trace: {about['reason']}."


def explain(stored: dict[str, Any], depth: int, gpu: Roofline) -> str:
    """What keeps the forward from being as fast as its FLOPs; "" without a trace.

    depth: blocks of the model.
    """
    if stored["traced"] is None:
        return ""
    plain = f"{stored['unreduced']['launches'] / depth:.3g} launches"
    extra, bound = extra_launches(stored), _bound(stored, gpu)
    if extra is None:
        return f"{plain} a block{bound}."
    blocks = f"each of {stored['blocks']} reducing blocks" if stored["blocks"] > 1 else "the one block that reduces"
    waits = stored["traced"]["host_reads"]
    return (
        f"{extra:.3g} launches more in {blocks}, where the unreduced model has {plain} a block"
        f"{_more_bytes(stored)}{bound}" + (f"; the GPU waits for the CPU {waits} × a forward." if waits else ".")
    )


def _more_bytes(stored: dict[str, Any]) -> str:
    traced, unreduced = stored["traced"], stored["unreduced"]
    ratio = traced["moved"] / unreduced["moved"] * unreduced["macs"] / traced["macs"]
    return f", and {ratio:.2f} × the bytes that its FLOPs let expect" if ratio >= MORE_BYTES else ""


def _bound(stored: dict[str, Any], gpu: Roofline) -> str:
    if stored["precision"] == "fp32":  # the model of the GPU is one of half precision
        return ""
    batch = least_batch(stored, gpu)
    return f": on an {gpu.name}, bound by launches below batch ~{batch} (predicted)" if batch else ""


def least_batch(stored: dict[str, Any], gpu: Roofline) -> int | None:
    """The least power of two of images whose forward keeps a GPU busy for as long as the CPU takes to launch it; None
    where launches bind at any batch."""
    for batch in BATCHES:
        trace = Trace.of_rows(stored["kernels"], 0, batch / stored["batch_size"])
        if gpu.seconds(trace) >= gpu.host_seconds(trace):
            return batch
    return None
