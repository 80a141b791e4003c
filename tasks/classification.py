"""Scoring of single-label classification, shared by every task of that kind: top-1, top-5 and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from suite.contract.metric import Metric, Need, TaskReport
from suite.contract.task import Sample, Summary, Task
from suite.errors import CellError, RequestError
from suite.stats.aggregates import CalibrationError, Share

TOP_K = 5
SAMPLE, CLASSES = Need("samples", 1, "1 sample"), Need("classes", TOP_K + 1, f"{TOP_K + 1} classes")


class ClassificationTask(Task):
    """A task with one label in [0, num_classes) a sample, for models that output logits (B, num_classes)."""

    shown = TaskReport(
        (
            Metric("top1", "Top-1 (%)", Share("correct"), needs=(SAMPLE,)),
            Metric("top5", "Top-5 (%)", Share("correct5"), needs=(CLASSES, SAMPLE)),
            Metric(
                "ece", "ECE (%)", CalibrationError("correct", "confidence"), lower_is_better=True, hidden=True,
                needs=(SAMPLE,),
            ),
        )
    )  # fmt: skip
    outcomes = pa.schema(
        [
            ("id", pa.string()),
            ("label", pa.int32()),
            ("prediction", pa.int32()),
            ("correct", pa.bool_()),
            ("correct5", pa.bool_()),
            ("top5", pa.list_(pa.int32())),
            ("confidence", pa.float32()),
        ]
    )
    num_classes: int

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model outputs as many classes as there are."""
        classes = getattr(model, "num_classes", None)
        if classes is None:
            raise RequestError(
                f"task {self.name!r} needs a model that outputs classes, and {type(model).__name__} does not; "
                f"use one such as {self.default_model}"
            )
        if classes != self.num_classes:
            raise RequestError(
                f"task {self.name!r} has {self.num_classes} classes, but the model outputs {classes}; "
                "use a model whose head was trained for these classes"
            )

    def score(self, outputs: Tensor, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, label, prediction, correct, correct5, top5 and confidence; see `score_logits`."""
        return score_logits(outputs, samples, self.num_classes)

    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary]]:
        """top1, top5 and the calibration error as fractions in [0, 1], with 95 % intervals."""
        for key, rows in cells.items():
            yield key, Summary(self.score_metrics(rows, {"samples": len(rows), "classes": self.num_classes}))


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
