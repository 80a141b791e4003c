"""Several tests at once: how many of them would succeed by chance, and what to make of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusted p-values (m,): rejecting those of at most `a` errs anywhere in the family with probability at most `a`.

    Whatever the tests have to do with each other. Source: S. Holm, "A simple sequentially rejective multiple test
    procedure", 1979.

    Raises:
        ValueError: a value that is no probability.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("p-values are a list of numbers within 0..1")
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted
