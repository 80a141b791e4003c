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
from torch import Tensor

from suite.errors import RequestError
from suite.stats.areas import AREAS

COLUMNS = [("classes", pa.list_(pa.int16())), *((name, pa.list_(pa.int64())) for name in AREAS)]
INSTALL = "pip install 'reducerbench[segmentation]'"


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
            f"segmentation is scored by mmsegmentation, which cannot be imported ({reason}); install it with: {INSTALL}"
        ) from error
    return IoUMetric


def scorer() -> str:
    """The scorer's release."""
    return f"mmsegmentation {version('mmsegmentation')}"


def class_areas(prediction: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """(3, num_classes) int64 pixels of every class in two masks (H, W) uint8 of one device, in the order of `AREAS`.

    intersection: where both say it; predicted, labelled: where one does. Pixels whose truth is IGNORED count nowhere.
    As mmsegmentation's `intersect_and_union`, in whole numbers. Pairs of classes are counted by sorting them: bincount
    makes the host wait, and adding to the same places is slow on a GPU where it has to be repeatable.
    """
    row = truth.flatten().clamp(max=num_classes)  # of ignored pixels behind all others
    pairs = torch.add(prediction.flatten().int(), row, alpha=num_classes).sort().values
    each = torch.arange(num_classes**2 + 1, dtype=pairs.dtype, device=pairs.device)
    counts = torch.searchsorted(pairs, each).diff().view(num_classes, num_classes)  # by truth and prediction
    return torch.stack([counts.diagonal(), counts.sum(dim=0), counts.sum(dim=1)])


def area_columns(areas: np.ndarray) -> list[pa.ListArray]:
    """`COLUMNS` of n images from their areas (n, 3, num_classes): of the classes that are seen in either mask."""
    seen = areas.any(axis=1)
    ends = np.append(0, seen.sum(axis=1).cumsum()).astype(np.int32)
    values = (np.nonzero(seen)[1], *(areas[:, kind][seen] for kind in range(len(AREAS))))
    types = (column.value_type for _, column in COLUMNS)
    return [pa.ListArray.from_arrays(ends, pa.array(of, type)) for of, type in zip(values, types, strict=True)]


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
