"""The kind of task that has a model's pooled features judged: by training images, and by the unreduced model's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from torch import Tensor, nn

from suite.contract.metric import TaskReport
from suite.contract.task import Sample, Summary, Task
from suite.errors import CellError, RequestError
from tasks.classification import label_rows
from tasks.features.pooled import has_features, pooled_features
from tasks.features.protocol import Found, Labelled, Protocol
from tasks.features.protocols import PROTOCOLS
from tasks.reading.images import TimmPreprocessing

UNREDUCED_BANK = "unreduced"
BANKS = ("reduced", UNREDUCED_BANK)


class FeatureTask(Task):
    """A task whose outcomes are features: they are stored, and scores are made of them when all are there.

    `support` are the training images, if there are any; they go through the same reducer at the same rate as the
    samples. protocols: what scores there are, the first decides. bank_by: 'unreduced' takes the training images'
    features from the unreduced model, as of a bank that was made before anybody thought of reducing.
    """

    outcomes = pa.schema(
        [
            ("id", pa.string()),
            ("prediction", pa.string()),  # of the feature's bits: equal where the feature is
            ("labels", pa.list_(pa.int32())),
            ("feature", pa.list_(pa.float32())),
        ]
    )
    beside = ("feature",)
    offered: ClassVar[Sequence[str]]  # the protocols that the task has what they need for

    def __init__(
        self, data: str | None, limit: int | None, protocols: str | Sequence[str] | None, bank_by: str = BANKS[0]
    ) -> None:
        super().__init__(data, limit)
        asked = protocols.split(",") if isinstance(protocols, str) else (protocols or self.offered)
        self.protocols = [self._protocol(str(name).strip()) for name in asked]
        if bank_by not in BANKS:
            raise RequestError(f"bank_by {bank_by!r} is unknown; use {' or '.join(BANKS)}")
        self.bank_by = bank_by
        self.shown = report_of(self.protocols)  # type: ignore[misc]
        self.notes = [f"{self.name}: {protocol.said}" for protocol in self.protocols if protocol.said]

    def _protocol(self, name: str) -> Protocol:
        if name not in self.offered:
            raise RequestError(f"protocol {name!r} is unknown to task {self.name!r}; use {', '.join(self.offered)}")
        return PROTOCOLS[name]

    def protocol(self) -> dict[str, Any]:
        """Whose features the training images' are."""
        return {"bank_by": self.bank_by}

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model says what its classifier is given."""
        if not has_features(model):
            raise RequestError(
                f"task {self.name!r} needs a model with pooled features (forward_features and forward_head), and "
                f"{type(model).__name__} has none; use one such as {self.default_model}"
            )

    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> TimmPreprocessing:
        """timm's own evaluation preprocessing for the model."""
        return TimmPreprocessing.of(model, image_size)

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """See `pooled_features`."""
        return pooled_features(model, images)

    def score(self, outputs: Tensor, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, prediction (hash of the feature), labels and feature. CellError that names the first sample whose
        feature holds NaN or Inf."""
        measured = FeatureTask.measure(self, outputs, samples).cpu()
        rows: list[dict[str, Any]] = FeatureTask.columns(self, measured, samples).to_pylist()
        return rows

    def measure(self, outputs: Tensor, samples: Sequence[Sample]) -> Tensor:
        """(B, C) float32."""
        if outputs.dim() != 2 or len(outputs) != len(samples):
            first = samples[0].id if samples else "none"
            raise CellError(
                f"features have shape {tuple(outputs.shape)} instead of ({len(samples)}, C) from sample '{first}' on"
            )
        return outputs.detach().float()

    def columns(self, measured: Tensor, samples: Sequence[Sample]) -> pa.RecordBatch:
        """See `score`."""
        features = measured.numpy()
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if bad.size:
            raise CellError(f"the feature of sample '{samples[bad[0]].id}' holds NaN or Inf")
        ends = np.arange(len(features) + 1, dtype=np.int32) * features.shape[1]
        columns = {
            "id": pa.array([sample.id for sample in samples], pa.string()),
            "prediction": [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in features],
            "labels": [labels_of(sample) for sample in samples],
            "feature": pa.ListArray.from_arrays(ends, features.ravel()),
        }
        return pa.RecordBatch.from_pydict(columns, schema=FeatureTask.outcomes)

    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary | CellError]]:
        """What the protocols say of each cell, as fractions, with 95 % intervals."""
        support = {sample.id for sample in self.support}
        for key in cells:  # no more than one cell's rows are held
            yield key, self._summary(cells[key], support)

    def _summary(self, rows: pd.DataFrame, support: set[str]) -> Summary:
        in_bank = rows["id"].isin(support)
        samples, bank = rows[~in_bank].reset_index(drop=True), rows[in_bank]
        bank_feature = "unreduced_feature" if self.bank_by == UNREDUCED_BANK else "feature"
        found = Found(
            Labelled(stacked(samples["feature"]), labels_stacked(samples)),
            Labelled(stacked(bank[bank_feature]), labels_stacked(bank)),
            stacked(samples["unreduced_feature"]) if samples["unreduced_feature"].notna().all() else None,
        )
        counts, columns = counts_of(found), {"id": samples["id"]}
        for protocol in self.protocols:
            if not all(metric.undefined(counts) for metric in protocol.metrics):
                columns |= protocol.columns(found)
        scored = pd.DataFrame(columns)
        return Summary(self.score_metrics(scored, counts), scored, tuple(found.notes))


def report_of(protocols: Sequence[Protocol]) -> TaskReport:
    """The metrics of protocols, the first one's first."""
    return TaskReport(tuple(metric for protocol in protocols for metric in protocol.metrics))


def counts_of(found: Found) -> dict[str, int]:
    """What the metrics' needs name."""
    sides = (found.samples.features, found.unreduced)
    varying = all(side is not None and bool(np.ptp(side, axis=0).any()) for side in sides) if len(found.samples) else 0
    return {
        "samples": len(found.samples),
        "bank": len(found.bank),
        "classes": len(np.unique(found.bank.labels[:, :1])),
        "unreduced": 0 if found.unreduced is None else len(found.unreduced),
        "varying": int(varying),
    }


def labels_of(sample: Sample) -> list[int]:
    """The classes that are right; none of a sample without a label."""
    return [] if sample.label is None else label_rows([sample])[0].tolist()


def stacked(features: pd.Series) -> np.ndarray:
    """(n, C) float64; (0, 0) of none. Null where the unreduced model has none."""
    present = features.dropna()
    return np.stack(present.to_list()).astype(np.float64) if len(present) else np.zeros((0, 0))


def labels_stacked(rows: pd.DataFrame) -> np.ndarray:
    """(n, W) int64; where a row has fewer than W labels its first fills it."""
    labels = [list(of) for of in rows["labels"]]
    width = max(map(len, labels), default=0)
    filled = [[*of, *of[:1] * (width - len(of))] for of in labels]
    return np.array(filled, dtype=np.int64).reshape(len(rows), width)
