"""Areas of classes of one image, and the scores of a set of images, by mmsegmentation's own code.

mIoU is a ratio of sums over the whole set, never a mean over images, so what an image contributes is its areas. They
are kept as whole numbers: `IoUMetric` itself adds them up in float32, where a sum above 2^24 loses pixels.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from suite.errors import RequestError
from suite.stats.areas import AREAS
from tasks.reading.masks import IGNORED

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
    masks = (torch.from_numpy(mask.astype(np.uint8).ravel()) for mask in (prediction, truth))
    for said, true in zip(*(mask.split(EXACT) for mask in masks), strict=True):
        both, _, predicted, labelled = iou_metric().intersect_and_union(said, true, num_classes, IGNORED)
        areas += torch.stack([both, predicted, labelled]).to(torch.int64).numpy()
    seen = areas.any(axis=0)
    return {"classes": np.flatnonzero(seen).tolist(), **dict(zip(AREAS, areas[:, seen].tolist(), strict=True))}


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
