"""Pictures of classes, judged by a classifier that the model brings with it, and against the unreduced model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from suite.contract.metric import Cost, Metric, TaskReport
from suite.contract.task import Sample, Summary
from suite.errors import CellError, RequestError
from suite.stats.aggregates import Mean, MeanOfInfluence, Share
from suite.stats.sets import Moments, frechet_values, kernel_values, moments
from tasks.generation.pairs import paired, png
from tasks.generation.task import (
    MSE,
    PAIR,
    PICTURE,
    PSNR,
    SSIM,
    GenerationTask,
    check_finite,
    lacking_similarity,
    levels_of,
)

NO_REAL = "the model brings no features of real pictures"


@dataclass(frozen=True)
class Drawn:
    """Pictures (B, 3, H, W) float32 in [-1, 1], of 256 levels; the judge's logits (B, K) and features (B, D)."""

    pictures: Tensor
    logits: Tensor
    features: Tensor


class JudgedGeneration(GenerationTask):
    """Samples are a class and a seed, for models that draw, `draw(noise, classes, steps, guidance)`, and judge what was
    drawn, `look(pictures)`. Task options: see `GenerationTask`.
    """

    shown = TaskReport(
        (
            Metric("class_accuracy", "Class (%)", Share("correct"), needs=(PICTURE,)),
            Metric(
                "frechet", "Fréchet", MeanOfInfluence("frechet_influence"), True, largest=None, scale=1, needs=(PAIR,)
            ),
            Metric(
                "kernel",
                "Kernel",
                MeanOfInfluence("kernel_influence"),
                True,
                largest=None,
                scale=1,
                decimals=2,
                needs=(PAIR,),
            ),
            SSIM,
            PSNR,
            Metric("feature_distance", "Features", Mean("feature_distance"), True, False, 2.0, 1, 3, needs=(PICTURE,)),
            Metric("changed", "Changed (%)", Share("changed"), lower_is_better=True, needs=(PICTURE,)),
            MSE,
        ),
        costs=(Cost("picture", "GMACs/picture"),),
        remark=(
            "Class, Fréchet and Kernel: by the judge, of what was drawn and of real pictures; Fréchet falls with the "
            "number of pictures, so only cells of as many compare. SSIM, PSNR (median), Features (1 - cosine of the "
            "judge's) and Changed: to the unreduced model's picture of the same sample"
        ),
    )
    outcomes = pa.schema(
        [
            ("id", pa.string()),
            ("label", pa.int32()),
            ("prediction", pa.int32()),
            ("correct", pa.bool_()),
            ("picture", pa.binary()),
            ("features", pa.list_(pa.float32())),
        ]
    )
    beside = ("picture", "features", "prediction")
    num_classes: int
    real: np.ndarray | None = None  # features (n, D) of real pictures
    real_moments: Moments

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model draws and judges."""
        super().check_model(model)
        if not hasattr(model, "look"):
            raise RequestError(f"task {self.name!r} needs a judge, and model {type(model).__name__} has none")

    def configure(self, model: nn.Module) -> None:
        super().configure(model)
        judging: Any = model
        features = judging.real_features.double().cpu().numpy()
        if len(features) > 1:
            self.real, self.real_moments = features, moments(features)

    def seed_of(self, sample: Sample) -> int:
        """'<class>/<seed>': no two classes share noise."""
        return int(sample.label) + self.num_classes * int(sample.id.rpartition("/")[2])

    def draw(self, model: Any, noise: Tensor, samples: Sequence[Sample]) -> Tensor:
        classes = torch.tensor([sample.label for sample in samples], device=noise.device)
        drawn: Tensor = model.draw(noise, classes, self.steps, self.guidance)
        return drawn

    def predict_samples(self, model: Any, images: Tensor, samples: Sequence[Sample]) -> Drawn:
        """Pictures of the samples' classes from their noise, and what the judge makes of them."""
        pictures = self.drawn_levels(model, images, samples)
        return Drawn(pictures, *model.look(pictures.to(images.dtype)))

    def score(self, outputs: Drawn, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, label, prediction (what the judge takes it for), correct, picture (PNG) and features."""
        # by the class: one with a score of its own has the others follow that
        measured = {name: value.cpu() for name, value in JudgedGeneration.measure(self, outputs, samples).items()}
        rows: list[dict[str, Any]] = JudgedGeneration.columns(self, measured, samples).to_pylist()
        return rows

    def measure(self, outputs: Drawn, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """See `columns`. CellError for shapes that cannot be meant."""
        first = samples[0].id if samples else "none"
        if not isinstance(outputs, Drawn):
            raise CellError(f"the model returned a {type(outputs).__name__} instead of pictures from {first!r} on")
        wanted = (len(samples), self.num_classes)
        if outputs.logits.shape != wanted or len(outputs.pictures) != len(samples) or outputs.pictures.dim() != 4:
            found = tuple(outputs.pictures.shape), tuple(outputs.logits.shape)
            raise CellError(f"pictures and logits have shapes {found} from {first!r} on, for {wanted}")
        finite = torch.stack([part.isfinite().flatten(1).all(1) for part in vars(outputs).values()]).all(0)
        judged = outputs.logits.float().nan_to_num(0).argmax(1)
        levels = levels_of(outputs.pictures)
        return {"levels": levels, "judged": judged, "features": outputs.features.float(), "finite": finite}

    def columns(self, measured: dict[str, Tensor], samples: Sequence[Sample]) -> pa.RecordBatch:
        """Columns of `outcomes`. CellError that names the first sample whose picture holds NaN or Inf."""
        check_finite(measured["finite"], samples)
        judged = measured["judged"].numpy().astype(np.int32)
        labels = np.array([sample.label for sample in samples], np.int32)
        columns = {
            "id": pa.array([sample.id for sample in samples], pa.string()),
            "label": labels,
            "prediction": judged,
            "correct": judged == labels,
            "picture": pa.array([png(levels) for levels in measured["levels"].numpy()], pa.binary()),
            "features": pa.array(list(measured["features"].numpy()), pa.list_(pa.float32())),
        }
        return pa.RecordBatch.from_pydict(columns, schema=self.outcomes)

    def summary(self, rows: pd.DataFrame) -> Summary:
        own: dict[str, np.ndarray] = {}
        if len(rows) > 1 and self.real is not None:
            features = np.stack(rows["features"].tolist()).astype(float)
            own = {
                "frechet_influence": frechet_values(features, self.real_moments),
                "kernel_influence": kernel_values(features, self.real),
            }
        reasons = {"frechet": NO_REAL, "kernel": NO_REAL, **lacking_similarity(0)}
        return self.combined(rows, own, judged_pairs(rows), reasons)


def judged_pairs(rows: pd.DataFrame) -> pd.DataFrame | None:
    """`paired`, with feature_distance: 1 - cosine of the judge's features; changed: it takes it for something else."""
    pairs = paired(rows, {})
    if pairs is None:
        return None
    both = rows[rows["unreduced_picture"].notna()]
    features, known = (np.stack(both[name].tolist()).astype(float) for name in ("features", "unreduced_features"))
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(known, axis=1)
    distance = (1 - (features * known).sum(1) / norms.clip(min=1e-12)).clip(min=0)
    changed = (both["prediction"] != both["unreduced_prediction"]).to_numpy(bool)
    return pairs.assign(feature_distance=distance, changed=changed)
