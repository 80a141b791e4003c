"""Areas of classes by mmsegmentation's own code: of one image, over a set of images, and over resamples of the set.

mIoU is a ratio of sums over the whole set, never a mean over images, so what an image contributes is its areas. They
are kept as whole numbers: `IoUMetric` itself adds them up in float32, where a sum above 2^24 loses pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from suite.contract.task import Score
from suite.errors import RequestError
from suite.stats import jackknife_interval, pseudo_values
from tasks.reading.masks import IGNORED

AREAS = ("intersection", "predicted", "labelled")
COLUMNS = [("classes", pa.list_(pa.int16())), *((name, pa.list_(pa.int64())) for name in AREAS)]
EXACT = 2**24  # pixels that float32 can count
PACKAGES = "'mmsegmentation>=1.2,<2' 'mmengine>=0.10' 'mmcv-lite>=2.0,<2.2' ftfy regex"


@cache
def iou_metric() -> Any:
    """mmsegmentation's `IoUMetric`, imported when it is needed: that takes a second, and no compiled mmcv.

    RequestError where it cannot be imported.
    """
    try:
        from mmseg.evaluation import IoUMetric
    except (ImportError, AssertionError) as error:  # with an mmcv that is too new it raises AssertionError
        reason = " ".join(str(error).split())
        raise RequestError(
            f"segmentation is scored by mmsegmentation, which cannot be imported ({reason}); install it with: pip "
            f"install {PACKAGES}"
        ) from error
    return IoUMetric


def scorer() -> str:
    """The scorer's release."""
    return f"mmsegmentation {version('mmsegmentation')}"


def image_areas(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> dict[str, list[int]]:
    """Pixels of every class that is seen in either of two masks (H, W) of class indices, as a row of `COLUMNS`.

    intersection: where both say it; predicted, labelled: where one does. Pixels whose truth is IGNORED count nowhere.
    """
    areas = np.zeros((len(AREAS), num_classes), dtype=np.int64)
    prediction, truth = (torch.from_numpy(mask.astype(np.uint8).ravel()) for mask in (prediction, truth))
    for said, true in zip(prediction.split(EXACT), truth.split(EXACT), strict=True):
        both, _, predicted, labelled = iou_metric().intersect_and_union(said, true, num_classes, IGNORED)
        areas += torch.stack([both, predicted, labelled]).to(torch.int64).numpy()
    seen = areas.any(axis=0)
    return {"classes": np.flatnonzero(seen).tolist(), **dict(zip(AREAS, areas[:, seen].tolist(), strict=True))}


def dense_areas(rows: pd.DataFrame, num_classes: int) -> np.ndarray:
    """Rows of `image_areas` as (n, 3, num_classes) int64, in the order of `AREAS`."""
    flat = {name: np.fromiter(chain.from_iterable(rows[name]), dtype=np.int64) for name in ("classes", *AREAS)}
    image = np.repeat(np.arange(len(rows)), rows["classes"].map(len))
    areas = np.zeros((len(rows), len(AREAS), num_classes), dtype=np.int64)
    for kind, name in enumerate(AREAS):
        areas[image, kind, flat["classes"]] = flat[name]
    return areas


def metrics(areas: np.ndarray) -> dict[str, float]:
    """mmsegmentation's mIoU, aAcc and mAcc, as fractions, of summed areas (3, num_classes) with a labelled pixel.

    In float64, which is exact for sums up to 2^53. Classes that occur in neither mask are left out of the mean of IoU,
    and those without a labelled pixel out of that of accuracy.
    """
    both, predicted, labelled = torch.from_numpy(areas.astype(np.float64))
    found = iou_metric().total_area_to_metrics(both, predicted + labelled - both, predicted, labelled)
    return {
        "miou": float(np.nanmean(found["IoU"])),
        "aacc": float(found["aAcc"]),
        "macc": float(np.nanmean(found["Acc"])),
    }


def metrics_of_resamples(areas: np.ndarray) -> dict[str, np.ndarray]:
    """`metrics` of each of many sums (R, 3, num_classes), as arrays (R,); NaN for one without a labelled pixel."""
    both, predicted, labelled = np.moveaxis(areas, 1, 0)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return {
            "miou": np.nanmean(both / (predicted + labelled - both), axis=1),
            "aacc": both.sum(axis=1) / labelled.sum(axis=1),
            "macc": np.nanmean(both / labelled, axis=1),
        }


def scores(rows: pd.DataFrame, num_classes: int) -> Mapping[str, Score]:
    """The metrics of all images together, each with its 95 % jackknife interval over images.

    Of the population's score, if the images are a sample of it. At least one pixel is labelled, and with a single
    image that has some there is no interval.
    """
    areas = dense_areas(rows, num_classes)
    total = areas.sum(axis=0)
    return {name: Score(value, *_interval(areas, name)) for name, value in metrics(total).items()}


def _interval(areas: np.ndarray, metric: str) -> tuple[float, float] | tuple[None, None]:
    def statistic(sums: np.ndarray) -> np.ndarray:
        return metrics_of_resamples(sums.reshape(-1, *areas.shape[1:]))[metric]

    low, high = jackknife_interval(*pseudo_values(areas.reshape(len(areas), -1), statistic))
    return (None, None) if np.isnan(low) else (float(low), float(high))
