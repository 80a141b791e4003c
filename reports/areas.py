"""Areas of classes in every sample's masks, as they are stored, and the mean IoU that they come to."""

from __future__ import annotations

import numpy as np
import pandas as pd

from suite.stats import Floats

AREAS = ("intersection", "predicted", "labelled")


def dense_areas(table: pd.DataFrame, classes: int) -> Floats:
    """(n, 3, K) float64 areas in the order of AREAS; exact, for a picture's pixels are far below 2^53."""
    counts = table["classes"].map(len).to_numpy()
    image, seen = np.repeat(np.arange(len(table)), counts), np.concatenate(table["classes"].to_list()).astype(int)
    areas = np.zeros((len(table), len(AREAS), classes))
    for place, name in enumerate(AREAS):
        areas[image, place, seen] = np.concatenate(table[name].to_list())
    return areas


def mean_iou(areas: Floats) -> Floats:
    """Mean over the classes that occur of intersection / union, of areas (..., 3, K); NaN where none occurs."""
    both, predicted, labelled = np.moveaxis(areas, -2, 0)
    union = predicted + labelled - both
    share = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    occurring = (union > 0).sum(axis=-1)
    mean = np.full(occurring.shape, np.nan)
    np.divide(share.sum(axis=-1), occurring, out=mean, where=occurring > 0)
    return mean
