"""Scoring of single-label classification, shared by every task of that kind: top-1, top-5 and confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from suite.errors import CellError
from suite.task import Sample, Task

TOP_K = 5


class ClassificationTask(Task):
    """A task with one label in [0, num_classes) a sample, for models that output logits (B, num_classes)."""

    def score(self, outputs: Tensor, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, label, prediction, correct, correct5, top5 and confidence; see `score_logits`."""
        return score_logits(outputs, samples, self.num_classes)

    def summary(self, frame: pd.DataFrame) -> dict[str, tuple[float | None, int]]:
        """top1 and top5 as fractions in [0, 1], each with the number of samples it is the mean of."""
        return {"top1": _mean(frame["correct"]), "top5": _mean(frame["correct5"])}


def score_logits(logits: Tensor, samples: Sequence[Sample], num_classes: int) -> list[dict[str, Any]]:
    """One row per sample from logits (B, num_classes) of any float dtype, on any device.

    prediction: class of the largest logit; top5: the five best classes, best first; equal logits are
    ordered by class index, lowest first, so that a result never depends on a kernel's order. confidence:
    softmax of the prediction. With five classes or fewer every label is among the five best, so top-5 has
    no meaning and correct5 is None. Raises CellError naming the first sample for a wrong shape, NaN or Inf,
    or a label outside [0, num_classes).
    """
    _check(logits, samples, num_classes)
    # float64 holds the values of every dtype exactly: ties are the model's own, not made by rounding.
    logits = logits.detach().to("cpu", torch.float64)
    # topk does not say in which order it returns equal values; a stable sort does.
    ordered, classes = torch.sort(logits, dim=1, descending=True, stable=True)
    confidences = (ordered[:, 0] - torch.logsumexp(logits, dim=1)).exp().tolist()
    rows = []
    for sample, top, confidence in zip(samples, classes[:, :TOP_K].tolist(), confidences, strict=True):
        rows.append(
            {
                "id": sample.id,
                "label": sample.label,
                "prediction": top[0],
                "correct": top[0] == sample.label,
                "correct5": sample.label in top if num_classes > TOP_K else None,
                "top5": top,
                "confidence": confidence,
            }
        )
    return rows


def _check(logits: Tensor, samples: Sequence[Sample], num_classes: int) -> None:
    first = samples[0].id if samples else "none"
    expected = (len(samples), num_classes)
    if not isinstance(logits, Tensor):
        raise CellError(f"the model returned a {type(logits).__name__} instead of logits {expected} from '{first}' on")
    if tuple(logits.shape) != expected:
        raise CellError(f"logits have shape {tuple(logits.shape)} instead of {expected} from sample '{first}' on")
    if not logits.is_floating_point():
        raise CellError(f"logits have dtype {logits.dtype} instead of a float dtype from sample '{first}' on")
    for sample in samples:
        if not 0 <= sample.label < num_classes:
            raise CellError(f"sample '{sample.id}' has label {sample.label}, outside 0..{num_classes - 1}")
    bad = ~torch.isfinite(logits).all(dim=1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        kind = "NaN" if torch.isnan(logits[row]).any() else "Inf"
        raise CellError(
            f"logits of sample '{samples[row].id}' hold {kind} ({int(bad.sum())} such samples in this batch)"
        )


def _mean(outcomes: pd.Series) -> tuple[float | None, int]:
    known = outcomes.dropna()
    return (float(known.astype(bool).mean()), len(known)) if len(known) else (None, 0)
