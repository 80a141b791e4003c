"""How fast a device is, before a run."""

from __future__ import annotations

import time
from contextlib import suppress
from statistics import fmean

import torch

from suite.contract.choice import evenly_spaced
from suite.contract.task import ReadError, views_of
from suite.measure.timing import synchronize
from suite.sweep.images import sample_images
from suite.sweep.plan import Plan

PROBE_BATCH, PROBED = 8, 16  # images of a forward; samples whose views are counted


def seconds_per_image(plan: Plan) -> float:
    """Measured on the unreduced model, the second of two forwards; of all views of an image, as one sample has them."""
    device, model = plan.device, plan.model.to(plan.device)
    images = sample_images(plan, 1).to(device).expand(PROBE_BATCH, -1, -1, -1)
    with torch.inference_mode():
        for _ in range(2):
            start = time.perf_counter()
            plan.task.predict(model, images)
            synchronize(device)
    return (time.perf_counter() - start) / PROBE_BATCH * views_per_sample(plan)


def views_per_sample(plan: Plan) -> float:
    """The mean over a few samples that can be read."""
    preprocessing, views = plan.task.preprocessing(plan.model, plan.spec.image_size), []
    for sample in evenly_spaced(plan.task.samples, PROBED):
        with suppress(ReadError):
            views.append(len(views_of(plan.task.load(sample, preprocessing))))
    return fmean(views) if views else 1.0
