"""Scoring of images that show several classes, or none, by mean average precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from torch import Tensor, nn

from suite.contract.metric import Metric, Need, TaskReport
from suite.contract.task import Sample, Summary, Task
from suite.errors import CellError, RequestError
from suite.stats.aggregates import MeanOfInfluence
from suite.stats.average_precision import mean_average_precision
from tasks.reading.images import TimmPreprocessing

PRESENT = Need("present", 1, "1 image that shows a class")


class MultiLabelTask(Task):
    """A task with a tuple of classes in [0, num_classes) a sample, for models that output a logit per class.

    A class counts by the order of the images by its logit alone, so no threshold is chosen; the mean is over the
    classes that occur.
    """

    shown = TaskReport(
        (Metric("map", "mAP (%)", MeanOfInfluence("map_influence"), bound_to_data=True, needs=(PRESENT,)),)
    )
    outcomes = pa.schema(
        [
            ("id", pa.string()),
            ("prediction", pa.int32()),  # the class of the largest logit
            ("labels", pa.list_(pa.int32())),
            ("logits", pa.list_(pa.float32())),
        ]
    )
    num_classes: int

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model outputs as many classes as there are."""
        classes = getattr(model, "num_classes", None)
        if classes != self.num_classes:
            has = "no classes" if classes is None else f"{classes}"
            raise RequestError(
                f"task {self.name!r} has {self.num_classes} classes, but {type(model).__name__} outputs {has}; use a "
                "model whose head was trained for these classes, with --checkpoint"
            )

    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> TimmPreprocessing:
        """timm's own evaluation preprocessing for the model."""
        return TimmPreprocessing.of(model, image_size)

    def score(self, outputs: Tensor, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, prediction, labels and logits. CellError that names the first sample of NaN or Inf."""
        measured = MultiLabelTask.measure(self, outputs, samples).cpu()
        rows: list[dict[str, Any]] = MultiLabelTask.columns(self, measured, samples).to_pylist()
        return rows

    def measure(self, outputs: Tensor, samples: Sequence[Sample]) -> Tensor:
        """(B, num_classes) float32."""
        expected = (len(samples), self.num_classes)
        if tuple(outputs.shape) != expected:
            first = samples[0].id if samples else "none"
            raise CellError(f"logits have shape {tuple(outputs.shape)} instead of {expected} from sample '{first}' on")
        return outputs.detach().float()

    def columns(self, measured: Tensor, samples: Sequence[Sample]) -> pa.RecordBatch:
        """See `score`."""
        logits = measured.numpy()
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if bad.size:
            raise CellError(f"logits of sample '{samples[bad[0]].id}' hold NaN or Inf")
        ends = np.arange(len(logits) + 1, dtype=np.int32) * self.num_classes
        columns = {
            "id": pa.array([sample.id for sample in samples], pa.string()),
            "prediction": logits.argmax(axis=1).astype(np.int32),
            "labels": [list(sample.label) for sample in samples],
            "logits": pa.ListArray.from_arrays(ends, logits.ravel()),
        }
        return pa.RecordBatch.from_pydict(columns, schema=MultiLabelTask.outcomes)

    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary]]:
        """The mean average precision as a fraction, with its 95 % interval."""
        for key in cells:  # no more than one cell's rows are held
            yield key, self._summary(cells[key])

    def _summary(self, rows: pd.DataFrame) -> Summary:
        logits = np.stack(rows["logits"].to_list())
        present = np.zeros((len(rows), self.num_classes), dtype=bool)
        for row, labels in zip(present, rows["labels"], strict=True):
            row[list(labels)] = True
        counts = {"present": int(present.any(axis=1).sum())}
        columns = {"id": rows["id"]}
        if counts["present"]:
            columns["map_influence"] = mean_average_precision(logits, present)[1]
        scored, occurring = pd.DataFrame(columns), int(present.any(axis=0).sum())
        note = f"mAP is the mean over the {occurring} of {self.num_classes} classes that occur"
        return Summary(self.score_metrics(scored, counts), scored, (note,) if occurring < self.num_classes else ())
