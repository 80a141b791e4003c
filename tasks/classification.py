"""Scoring of single-label classification, shared by every task of that kind: top-1, top-5 and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    """A task with a label in [0, num_classes) a sample, for models that output logits (B, num_classes).

    A label is a class, or a tuple of several that are all right. competing: the classes that a prediction is one of,
    ascending; None: all. said: how labels were assigned, and what else stands with the scores.
    """

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
    competing: tuple[int, ...] | None = None
    said: Sequence[str] = ()

    @property
    def choices(self) -> int:
        """How many classes a prediction is one of."""
        return len(self.competing) if self.competing else self.num_classes

    def protocol(self) -> dict[str, Any]:
        """The classes that compete, where these are not all."""
        return {"classes": list(self.competing)} if self.competing else {}

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
                f"{self.remedy(classes)}"
            )

    def remedy(self, classes: int) -> str:
        """What to do where a model outputs another number of classes."""
        return "use a model whose head was trained for these classes"

    def score(self, outputs: Tensor, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, label, prediction, correct, correct5, top5 and confidence; see `score_logits`."""
        return score_logits(outputs, samples, self.num_classes, self.competing)

    def measure(self, outputs: Tensor, samples: Sequence[Sample]) -> Tensor:
        """See `measure_logits`."""
        return measure_logits(outputs, samples, self.num_classes, self.competing)

    def columns(self, measured: Tensor, samples: Sequence[Sample]) -> pa.RecordBatch:
        """See `logit_columns`."""
        return logit_columns(measured, samples, self.num_classes, self.choices)

    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary]]:
        """top1, top5 and the calibration error as fractions in [0, 1], with 95 % intervals."""
        for key in cells:  # no more than one cell's rows are held
            yield key, self._summary(cells[key])

    def _summary(self, rows: pd.DataFrame) -> Summary:
        scores = self.score_metrics(rows, self.counts(rows))
        if scores["top1"].value is not None:
            scores["top1"] = replace(scores["top1"], chance=1 / self.choices)
        return Summary(scores, notes=tuple(self.said))

    def counts(self, rows: pd.DataFrame) -> dict[str, int]:
        """What the metrics' needs name."""
        return {"samples": len(rows), "classes": self.choices}


def score_logits(
    logits: Tensor, samples: Sequence[Sample], num_classes: int, competing: tuple[int, ...] | None = None
) -> list[dict[str, Any]]:
    """One row per sample from logits (B, num_classes) of any float dtype, on any device.

    prediction: class of the largest logit; top5: the five best classes, best first; equal logits are
    ordered by class index, lowest first, so that a result never depends on a kernel's order. confidence:
    softmax of the prediction; all three are of the classes that compete. With five of these or fewer
    every label is among the five best, so top-5 has no meaning and correct5 is None. Raises CellError naming the
    first sample for a wrong shape, NaN or Inf, or a label outside [0, num_classes).
    """
    measured = measure_logits(logits, samples, num_classes, competing).cpu()
    choices = len(competing) if competing else num_classes
    rows: list[dict[str, Any]] = logit_columns(measured, samples, num_classes, choices).to_pylist()
    return rows


def measure_logits(
    logits: Tensor, samples: Sequence[Sample], num_classes: int, competing: tuple[int, ...] | None = None
) -> Tensor:
    """What rows are made of, (B, k + 2) on the logits' device: the k <= 5 best classes, the confidence, the smallest
    logit. NaN of the logits is in the last two, Inf makes one of them NaN or Inf.

    competing: the classes that can be among the best, and that the confidence is over; None: all.
    float64 of float64, else float32, which holds classes below 2^24. CellError for a wrong shape or dtype.
    """
    _check(logits, samples, num_classes)
    # float32 holds the values of every shorter dtype exactly: ties are the model's own, not made by rounding.
    exact = logits.detach() if logits.dtype == torch.float64 else logits.detach().float()
    if competing:
        # of classes that do not compete, NaN and Inf alone count: they are multiplied into those that do
        classes = torch.tensor(competing, device=exact.device)
        exact = exact[:, classes] + 0 * exact.sum(dim=1, keepdim=True)
        best = classes[best_classes(exact, min(TOP_K, len(competing)))]
    else:
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


def logit_columns(
    measured: Tensor, samples: Sequence[Sample], num_classes: int, choices: int | None = None
) -> pa.RecordBatch:
    """The rows of `score_logits` as columns, from what `measure_logits` returned, on the CPU now.

    choices: how many classes competed; None: all. Of several labels that are right, `label` is the first.
    CellError naming the first sample whose logits hold NaN or Inf, or whose label is outside [0, num_classes).
    """
    numbers = measured.numpy()
    top, (confidence, smallest) = numbers[:, :-2].astype(np.int32), numbers[:, -2:].T
    labels = label_rows(samples)
    _check_labels(labels, samples, num_classes)
    _check_finite(confidence, smallest, samples)
    right = (top[:, :, None] == labels[:, None, :]).any(axis=2)
    columns = {
        "id": pa.array([sample.id for sample in samples], pa.string()),
        "label": labels[:, 0].astype(np.int32),
        "prediction": top[:, 0].copy(),
        "correct": right[:, 0].copy(),
        "correct5": right.any(axis=1) if (choices or num_classes) > TOP_K else pa.nulls(len(samples), pa.bool_()),
        "top5": pa.ListArray.from_arrays(np.arange(len(top) + 1, dtype=np.int32) * top.shape[1], top.ravel()),
        "confidence": confidence.astype(np.float32),
    }
    return pa.RecordBatch.from_pydict(columns, schema=ClassificationTask.outcomes)


def label_rows(samples: Sequence[Sample]) -> np.ndarray:
    """The labels that are right (B, W) int64, a row a sample; where one has fewer than W, its first fills the row."""
    labels = [sample.label if isinstance(sample.label, tuple) else (sample.label,) for sample in samples]
    width = max(map(len, labels), default=1)
    return np.array([(*of, *of[:1] * (width - len(of))) for of in labels], dtype=np.int64).reshape(-1, width)


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
    outside = np.flatnonzero(((labels < 0) | (labels >= num_classes)).any(axis=1))
    if outside.size:
        sample = samples[outside[0]]
        raise CellError(f"sample '{sample.id}' has label {sample.label}, outside 0..{num_classes - 1}")


def _check_finite(confidence: np.ndarray, smallest: np.ndarray, samples: Sequence[Sample]) -> None:
    bad = np.flatnonzero(~(np.isfinite(confidence) & np.isfinite(smallest)))
    if bad.size:
        kind = "NaN" if np.isnan(smallest[bad[0]]) else "Inf"
        raise CellError(f"logits of sample '{samples[bad[0]].id}' hold {kind} ({bad.size} such samples in this batch)")
