"""Pictures of what a segmentation model says of chosen samples, with and without its tokens reduced."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from reports.pictures.mask_sheet import MaskRow, draw_groups, write_masks
from suite.contract.baseline import BASELINE
from suite.contract.task import ReadError, Sample, views_of
from suite.errors import RequestError, unknown
from suite.measure.precision import dtype_of
from suite.rates.rate import rate_text
from suite.sweep.engine import SOLVED_ON
from suite.sweep.images import sample_images
from suite.sweep.plan import Plan, make_plan, resolve_device
from suite.sweep.spec import make_spec
from tasks.segmentation import SegmentationTask
from tasks.segmentation_scoring import class_areas, metrics

FIRST = 2  # samples, where none is named
KINDS = (".png", ".svg", ".pdf")


def write_mask_pictures(values: dict[str, Any], samples: tuple[str, ...], file: Path) -> list[str]:
    """Write `file`: every sample under every method at every rate that `values` (the keys of RunSpec) ask for.

    samples: ids; none: the first of the task's. Returns notes, such as methods that were left out. RequestError for
    a task without masks, an unknown sample, a sample that cannot be read, and a file of another kind than KINDS.
    """
    if file.suffix not in KINDS:
        raise RequestError(f"{str(file)!r}: pictures are written as {', '.join(KINDS)}; give the file such an ending")
    if not (values.get("rates") or values.get("flops") or values.get("cells")):
        values = {**values, "rates": "merge=0.5"}
    if not (values.get("reducers") or values.get("cells")):
        values = {**values, "reducers": "tome"}
    plan = make_plan(make_spec(values))
    if not hasattr(plan.task, "predicted_mask"):
        raise RequestError(f"task {plan.spec.task!r} has no masks to show; use scenes-seg or ade20k")
    if not any(method.reducer != BASELINE for method in plan.methods.values()):
        raise RequestError("no method is left to draw beside the unreduced model; name one with --reducers")
    known = {sample.id: sample for sample in plan.task.samples}
    for id in samples:
        if id not in known:
            raise unknown(f"sample of task {plan.spec.task!r}:", id, known)
    chosen = [known[id] for id in samples] or list(plan.task.samples[:FIRST])
    device = resolve_device(plan.spec.device)
    plan.model.to(device, dtype_of(plan.spec.precision))
    rows = [row for sample in chosen for row in rows_of(plan, sample, device)]
    task = cast(SegmentationTask, plan.task)
    write_masks(rows, task.class_names, task.palette, file)
    return plan.skipped


@torch.inference_mode()
def rows_of(plan: Plan, sample: Sample, device: torch.device) -> list[MaskRow]:
    """A row for every method and rate."""
    task, model = cast(SegmentationTask, plan.task), plan.model
    preprocessing = task.preprocessing(model, plan.spec.image_size)
    try:
        views = views_of(task.load(sample, preprocessing))
    except ReadError as error:
        raise RequestError(f"sample {sample.id!r} cannot be shown: {error}") from error
    image, truth = np.asarray(task.image(sample)), task.truth(sample)
    windows = [preprocessing.picture(view) for view in views]
    views = views.to(device, dtype_of(plan.spec.precision))
    plain = task.predicted_mask(task.predict(model, views), sample)
    rows = []
    for key, method in plan.methods.items():
        if method.reducer == BASELINE:
            continue
        rate = plan.rate_of(key, lambda: sample_images(plan, SOLVED_ON))
        with plan.handle(method, rate) as handle:
            mask = task.predicted_mask(task.predict(model, views), sample)
            tokens = handle.tokens
        name = " ".join(dict.fromkeys(filter(None, (method.reducer, rate_text(method.rate), rate_text(rate)))))
        groups = None
        owner = None if tokens is None or handle.restoring == "per_block" else tokens.owner
        if tokens is not None and owner is not None:
            patches = owner[:, tokens.num_prefix :] - tokens.num_prefix
            grids = patches.unflatten(1, handle.images.grid((views.shape[-2], views.shape[-1]))).cpu().numpy()
            drawn = [draw_groups(window, grid) for window, grid in zip(windows, grids, strict=True)]
            groups = preprocessing.joined_pictures(drawn, truth.shape[0], truth.shape[1])
        before, after = (f"mIoU {percent(miou(found, truth, task.num_classes))}" for found in (plain, mask))
        rows.append(MaskRow(sample.id, name, image, truth, plain, mask, groups, (before, after)))
    return rows


def miou(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> float | None:
    """Of one image alone; None where nothing in it is labelled."""
    said, true = (torch.from_numpy(mask.astype(np.uint8)) for mask in (prediction, truth))
    areas = class_areas(said, true, num_classes).numpy()
    return metrics(areas)["miou"] if areas.any() else None


def percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f}"
