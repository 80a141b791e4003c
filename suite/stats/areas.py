"""Areas of classes in masks, as they are stored of every image, and the scores that they come to.

mIoU is a ratio of sums over a whole set of images, never a mean over them.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

AREAS = ("intersection", "predicted", "labelled")


def dense_areas(rows: pd.DataFrame, num_classes: int) -> np.ndarray:
    """Rows of classes and AREAS, a list each, as (n, 3, num_classes) int64 pixels, in the order of `AREAS`."""
    flat = {name: flat_column(rows[name]) for name in ("classes", *AREAS)}
    image = np.repeat(np.arange(len(rows)), rows["classes"].map(len))
    areas = np.zeros((len(rows), len(AREAS), num_classes), dtype=np.int64)
    for kind, name in enumerate(AREAS):
        areas[image, kind, flat["classes"]] = flat[name]
    return areas


def flat_column(lists: pd.Series) -> np.ndarray:
    """All integers of a column of lists, one list after the other, (n,) int64."""
    none = np.empty(0, dtype=np.int64)
    return np.concatenate([none, *lists], dtype=np.int64, casting="unsafe")  # an empty list is one of float64


def mean_iou(areas: np.ndarray) -> np.ndarray:
    """Mean of intersection / union over the classes that occur, of areas (..., 3, K); NaN where none does."""
    both, predicted, labelled = _split(areas)
    return _mean_of_known(both, predicted + labelled - both)


def mean_accuracy(areas: np.ndarray) -> np.ndarray:
    """Mean of intersection / labelled over the classes that are labelled, of areas (..., 3, K); NaN where none is."""
    both, _, labelled = _split(areas)
    return _mean_of_known(both, labelled)


def pixel_accuracy(areas: np.ndarray) -> np.ndarray:
    """Share of the labelled pixels that are right, of areas (..., 3, K); NaN where none is labelled."""
    both, _, labelled = _split(areas)
    with np.errstate(invalid="ignore"):
        share: np.ndarray = both.sum(axis=-1) / labelled.sum(axis=-1)
    return share


def _split(areas: np.ndarray) -> np.ndarray:
    return np.moveaxis(areas, -2, 0)


def _mean_of_known(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        mean: np.ndarray = np.nanmean(part / whole, axis=-1)
    return mean
