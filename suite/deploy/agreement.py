"""Whether an exported file says what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from suite.formats.base import FP16, FP32, INT8

LARGEST_DIFFERENCE = {FP32: 0.01, FP16: 0.1, INT8: 0.5}
"""Between logits, over the largest of the sample's: what most samples may differ by. fp32: rounding errors are 1e-6."""
MOST = 0.95
"""Share of the samples that the bound holds for: where two merges are equally good, a rounding error decides which is
made, in float32 beside float64 as well, and that shows in the second digit."""
LEAST_AGREEMENT = {FP32: 1.0, FP16: 0.98, INT8: 0.9}
"""Share of the samples with the same class, where the weights are trained."""


@dataclass(frozen=True)
class Agreement:
    """Of `samples` samples: the share of the same top-1 class, None of random weights; the largest difference between
    logits; what `MOST` of the samples stay within, over the sample's largest logit; what these may be at least and at
    most. A sample without numbers makes both infinite."""

    samples: int
    top1: float | None
    difference: float
    relative: float
    least_top1: float
    most_relative: float

    @property
    def passed(self) -> bool:
        return self.relative <= self.most_relative and (self.top1 is None or self.top1 >= self.least_top1)

    def __str__(self) -> str:
        same = "top-1 not compared, the weights are random" if self.top1 is None else f"top-1 the same {self.top1:.1%}"
        return (
            f"{same} (at least {self.least_top1:.0%}), logits differ by up to {self.difference:.2g}, "
            f"{self.relative:.2g} of the largest on {MOST:.0%} (at most {self.most_relative:g}), {self.samples} samples"
        )


def compare_logits(
    found: np.ndarray, expected: np.ndarray, precision: str, trained: bool, most_relative: float | None = None
) -> Agreement:
    """(N, classes) of the file and of the model. most_relative: None for that of the precision."""
    apart = np.abs(found.astype(np.float64) - expected).max(axis=1)
    largest = np.abs(expected).max(axis=1)
    relative = np.divide(apart, largest, out=np.full_like(apart, np.inf), where=largest > 0)
    numbers = bool(np.isfinite(apart).all())
    same = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()) if trained else None
    return Agreement(
        len(found), same, float(apart.max()) if numbers else np.inf,
        float(np.quantile(relative, MOST, method="higher")) if numbers else np.inf, LEAST_AGREEMENT[precision],
        LARGEST_DIFFERENCE[precision] if most_relative is None else most_relative,
    )  # fmt: skip


def is_right(logits: np.ndarray, labels: Sequence[Any]) -> np.ndarray:
    """(N,) bool: the largest of logits (N, classes) is the sample's label, or one of its labels."""
    several = [label if isinstance(label, tuple) else (label,) for label in labels]
    return np.array([int(guess) in right for guess, right in zip(logits.argmax(axis=1), several, strict=True)])
