"""What every cell's forward would launch on a GPU, whatever the run's own device is.

Counted on shapes alone, at one batch size for all, so that cells can be compared. Where what is launched depends on
what the images show, it is counted on some of the run's own, all arithmetic included.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from suite.errors import describe_error
from suite.measure.kernels import Trace
from suite.measure.trace import trace_forward, trace_images
from suite.sweep.images import sample_images
from suite.sweep.lane import StoredCell
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress

BATCH = 256  # the literature's on GPUs
ON_IMAGES = 32
READS_NUMBERS = (DataDependentOutputException, DynamicOutputShapeException)


def trace_cells(plan: Plan, cells: Sequence[StoredCell], progress: Progress) -> None:
    """kernels.json of every cell that has none: in the run's precision on a GPU, else in bf16, as a GPU would be used.

    A cell that cannot be traced says why and goes on.
    """
    precision = plan.spec.precision if plan.identity["device"] == "cuda" else "bf16"

    @cache
    def unreduced(batch_size: int) -> Trace:
        return trace_forward(plan.model, batch_size, precision)

    for cell in progress.steps("tracing kernels", without_kernels(cells), name=lambda cell: cell.name):
        batch_size, on, found, reason = BATCH, "shapes", None, ""
        try:
            with cell.handle:
                try:
                    found = trace_forward(plan.model, BATCH, precision)
                except READS_NUMBERS:
                    images = sample_images(plan, ON_IMAGES)
                    batch_size, on, found = len(images), "images", trace_images(plan.model, images, precision)
        except Exception as error:  # what a method's own code raises; its cell is measured all the same
            reason = describe_error(error)
        handle = cell.handle
        cell.folder.write(
            "kernels",
            {
                "batch_size": batch_size,
                "precision": precision,
                "on": on,
                "reason": reason,
                "blocks": sum(amount > 0 for amount in handle.schedule(handle.layout.tokens).amounts),
                "traced": found and sums_of(found),
                "unreduced": sums_of(unreduced(batch_size)),
                "kernels": found.rows() if found else [],
            },
        )


def without_kernels(cells: Sequence[StoredCell]) -> list[StoredCell]:
    return [cell for cell in cells if cell.folder.read("kernels") is None]


def sums_of(trace: Trace) -> dict[str, Any]:
    return {name: getattr(trace, name) for name in ("launches", "moved", "macs", "host_reads", "peak")}
