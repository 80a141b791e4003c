"""Scoring of single-label classification, shared by every task of that kind: top-1, top-5 and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
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

    def measure(self, outputs: Tensor, samples: Sequence[Sample]) -> Tensor:
        """See `measure_logits`."""
        return measure_logits(outputs, samples, self.num_classes)

    def columns(self, measured: Tensor, samples: Sequence[Sample]) -> pa.RecordBatch:
        """See `logit_columns`."""
        return logit_columns(measured, samples, self.num_classes)

    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary]]:
        """top1, top5 and the calibration error as fractions in [0, 1], with 95 % intervals."""
        for key in cells:  # no more than one cell's rows are held
            yield key, self._summary(cells[key])

    def _summary(self, rows: pd.DataFrame) -> Summary:
        return Summary(self.score_metrics(rows, {"samples": len(rows), "classes": self.num_classes}))


def score_logits(logits: Tensor, samples: Sequence[Sample], num_classes: int) -> list[dict[str, Any]]:
    """One row per sample from logits (B, num_classes) of any float dtype, on any device.

    prediction: class of the largest logit; top5: the five best classes, best first; equal logits are
    ordered by class index, lowest first, so that a result never depends on a kernel's order. confidence:
    softmax of the prediction. With five classes or fewer every label is among the five best, so top-5 has
    no meaning and correct5 is None. Raises CellError naming the first sample for a wrong shape, NaN or Inf,
    or a label outside [0, num_classes).
    """
    measured = measure_logits(logits, samples, num_classes).cpu()
    rows: list[dict[str, Any]] = logit_columns(measured, samples, num_classes).to_pylist()
    return rows


def measure_logits(logits: Tensor, samples: Sequence[Sample], num_classes: int) -> Tensor:
    """What rows are made of, (B, k + 2) on the logits' device: the k <= 5 best classes, the confidence, the smallest
    logit. NaN of the logits is in the last two, Inf makes one of them NaN or Inf.

    float64 of float64, else float32, which holds classes below 2^24. CellError for a wrong shape or dtype.
    """
    _check(logits, samples, num_classes)
    # float32 holds the values of every shorter dtype exactly: ties are the model's own, not made by rounding.
    exact = logits.detach() if logits.dtype == torch.float64 else logits.detach().float()
    best = best_classes(exact, min(TOP_K, num_classes))
    confidence = torch.softmax(exact, dim=1).amax(dim=1, keepdim=True)
    return torch.cat([best, confidence, exact.amin(dim=1, keepdim=True)], dim=1)


def best_classes(logits: Tensor, count: int) -> Tensor:
    """(B, count) int64: the classes of the largest logits (B, C), best first, equal ones by index, lowest first.

    topk does not say in which order it returns equal values, a stable sort does. On a CPU, where that takes twenty
    times as long, it is for the rows that have equal values among their best; a GPU would have to wait to know them.
    """
    if logits.device.type != "cpu":
        return sorted_classes(logits)[:, :count]
    values, classes = logits.topk(min(count + 1, logits.shape[1]), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1)
    best = classes[:, :count]
    if tied.any():
        best[tied] = sorted_classes(logits[tied])[:, :count]
    return best


def sorted_classes(logits: Tensor) -> Tensor:
    """(B, C) int64: all classes in that order, without a number read by the host."""
    return torch.sort(logits + 0.0, dim=1, descending=True, stable=True).indices  # -0.0 becomes 0.0, which it equals


def logit_columns(measured: Tensor, samples: Sequence[Sample], num_classes: int) -> pa.RecordBatch:
    """The rows of `score_logits` as columns, from what `measure_logits` returned, on the CPU now.

    CellError naming the first sample whose logits hold NaN or Inf, or whose label is outside [0, num_classes).
    """
    numbers = measured.numpy()
    top, (confidence, smallest) = numbers[:, :-2].astype(np.int32), numbers[:, -2:].T
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    _check_labels(labels, samples, num_classes)
    _check_finite(confidence, smallest, samples)
    right = top == labels[:, None]
    columns = {
        "id": pa.array([sample.id for sample in samples], pa.string()),
        "label": labels.astype(np.int32),
        "prediction": top[:, 0].copy(),
        "correct": right[:, 0].copy(),
        "correct5": right.any(axis=1) if num_classes > TOP_K else pa.nulls(len(samples), pa.bool_()),
        "top5": pa.ListArray.from_arrays(np.arange(len(top) + 1, dtype=np.int32) * top.shape[1], top.ravel()),
        "confidence": confidence.astype(np.float32),
    }
    return pa.RecordBatch.from_pydict(columns, schema=ClassificationTask.outcomes)


def _check(logits: Tensor, samples: Sequence[Sample], num_classes: int) -> None:
    first = samples[0].id if samples else "none"
    expected = (len(samples), num_classes)
    if not isinstance(logits, Tensor):
        raise CellError(f"the model returned a {type(logits).__name__} instead of logits {expected} from '{first}' on")
    if tuple(logits.shape) != expected:
        raise CellError(f"logits have shape {tuple(logits.shape)} instead of {expected} from sample '{first}' on")
    if not logits.is_floating_point():
        raise CellError(f"logits have dtype {logits.dtype} instead of a float dtype from sample '{first}' on")


def _check_labels(labels: np.ndarray, samples: Sequence[Sample], num_classes: int) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        sample = samples[outside[0]]
        raise CellError(f"sample '{sample.id}' has label {sample.label}, outside 0..{num_classes - 1}")


def _check_finite(confidence: np.ndarray, smallest: np.ndarray, samples: Sequence[Sample]) -> None:
    bad = np.flatnonzero(~(np.isfinite(confidence) & np.isfinite(smallest)))
    if bad.size:
        kind = "NaN" if np.isnan(smallest[bad[0]]) else "Inf"
        raise CellError(f"logits of sample '{samples[bad[0]].id}' hold {kind} ({bad.size} such samples in this batch)")
