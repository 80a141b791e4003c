"""Scoring of pictures that a model draws, shared by every task of that kind: by a judge, and against the unreduced
model's pictures of the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from suite.contract.metric import Cost, Metric, Need, TaskReport
from suite.contract.task import Sample, Score, Summary, Task
from suite.errors import CellError, RequestError
from suite.stats.aggregates import Mean, Share
from suite.stats.sets import frechet_distance, kernel_distance
from tasks.generation.pairs import paired, png
from tasks.reading.options import whole_number

NEEDED = ("draw", "look", "judge_name", "real_features", "scope_branches")
PICTURE, PAIR = Need("pictures", 1, "1 picture"), Need("pictures", 2, "2 pictures")
NO_REAL = "the model brings no features of real pictures"
NO_SSIM = "torchmetrics is not installed: pip install 'reducerbench[generation]'"
PAIRED = ("mse", "ssim", "feature_distance", "changed")


@dataclass(frozen=True)
class Drawn:
    """Pictures (B, 3, H, W) float32 in [-1, 1], of 256 levels; the judge's logits (B, K) and features (B, D)."""

    pictures: Tensor
    logits: Tensor
    features: Tensor


@dataclass(frozen=True)
class Noise:
    """Makes a seed into standard normal noise of `shape` (C, H, W)."""

    shape: tuple[int, int, int]

    def __call__(self, seed: int) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator("cpu").manual_seed(seed))

    def picture(self, noise: Tensor) -> np.ndarray:
        """(H, W, 3) uint8 of noise, to be looked at."""
        levels = (64 * noise[:3].float() + 128).clamp(0, 255).to(torch.uint8)
        return levels.permute(1, 2, 0).cpu().numpy()


class GenerationTask(Task):
    """A task whose samples are a class and a seed, for models that draw: `draw(noise, classes, steps, guidance)`, and
    judge what was drawn: `look(pictures)`.

    Task options: `steps`: calls of the denoiser a picture. `guidance`: 1 draws with the class alone. `branches`: which
    branches of the denoiser's blocks run on fewer tokens, joined by '+' ('self', 'cross', 'mlp'). `max_downsample`: how
    much coarser than the input a reduced block's tokens may be.
    """

    shown = TaskReport(
        (
            Metric("class_accuracy", "Class (%)", Share("correct"), needs=(PICTURE,)),
            Metric("frechet", "Fréchet", lower_is_better=True, largest=None, scale=1, needs=(PAIR,)),
            Metric("kernel", "Kernel", lower_is_better=True, largest=None, scale=1, decimals=2, needs=(PAIR,)),
            Metric("ssim", "SSIM", Mean("ssim"), scale=1, decimals=3, needs=(PICTURE,)),
            Metric("psnr", "PSNR (dB)", largest=None, scale=1, decimals=1, needs=(PICTURE,)),
            Metric("feature_distance", "Features", Mean("feature_distance"), True, False, 2.0, 1, 3, needs=(PICTURE,)),
            Metric("changed", "Changed (%)", Share("changed"), lower_is_better=True, needs=(PICTURE,)),
            Metric("mse", "MSE", Mean("mse"), True, scale=1, decimals=4, hidden=True, needs=(PICTURE,)),
        ),
        costs=(Cost("picture", "GMACs/picture"),),
        remark=(
            "Class, Fréchet and Kernel: by the judge, of what was drawn and of real pictures; Fréchet falls with the "
            "number of pictures, so only cells of as many compare. SSIM, PSNR (median), Features (1 - cosine of the "
            "judge's) and Changed: to the unreduced model's picture of the same sample"
        ),
    )  # fmt: skip
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
    default_reducers = ("tome_sd", "tofu", "todo", "random", "uniform")
    default_rates = ("r=0.25", "r=0.5", "r=0.75")
    num_classes: int
    shape: tuple[int, int, int]  # of the noise

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        steps: int = 20,
        guidance: float = 2.0,
        branches: str = "self",
        max_downsample: int = 1,
    ) -> None:
        super().__init__(data, limit)
        if isinstance(guidance, bool) or not isinstance(guidance, int | float) or not guidance >= 1:
            raise RequestError(f"guidance {guidance!r} is no number of 1 or more; 1 draws with the class alone")
        self.steps, self.guidance = whole_number("steps", steps), float(guidance)
        self.branches = tuple(str(branches).split("+"))
        self.max_downsample = whole_number("max_downsample", max_downsample)
        self.real = np.empty((0, 0))

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model draws and judges, and knows as many classes as there are."""
        if not all(hasattr(model, name) for name in NEEDED):
            raise RequestError(
                f"task {self.name!r} needs a model that draws, and {type(model).__name__} does not; "
                f"use one such as {self.default_model}"
            )

    def configure(self, model: nn.Module) -> None:
        drawing: Any = model
        drawing.scope_branches(self.branches, self.max_downsample)
        self.real = drawing.real_features.double().cpu().numpy()

    def protocol(self) -> dict[str, Any]:
        """How pictures are drawn, and where tokens are taken out."""
        names = ("steps", "guidance", "max_downsample")
        return {name: getattr(self, name) for name in names} | {"branches": "+".join(self.branches)}

    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> Noise:
        """What a picture begins with."""
        return Noise(self.shape)

    def load(self, sample: Sample, preprocessing: Noise) -> Tensor:
        """Standard normal noise that follows from the sample alone, the same on every device and in every batch."""
        return preprocessing(self.seed_of(sample))

    def seed_of(self, sample: Sample) -> int:
        """Of a sample's noise: '<class>/<seed>'."""
        return int(sample.label) + self.num_classes * int(sample.id.rpartition("/")[2])

    def predict(self, model: nn.Module, images: Tensor) -> Drawn:
        """Pictures of all classes in turn: what takes as long as those that are asked for."""
        return self._draw(model, images, torch.arange(len(images), device=images.device) % self.num_classes)

    def predict_samples(self, model: nn.Module, images: Tensor, samples: Sequence[Sample]) -> Drawn:
        """Pictures of the samples' classes from their noise, and what the judge makes of them."""
        return self._draw(model, images, torch.tensor([sample.label for sample in samples], device=images.device))

    def _draw(self, model: Any, noise: Tensor, classes: Tensor) -> Drawn:
        drawn = model.draw(noise, classes, self.steps, self.guidance)
        levels = (127.5 * (drawn.float() + 1)).round()  # what is looked at is what is kept
        pictures = levels / 127.5 - 1
        return Drawn(pictures, *model.look(pictures.to(noise.dtype)))

    def score(self, outputs: Drawn, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, label, prediction (what the judge takes it for), correct, picture (PNG) and features."""
        # by the class: one with a score of its own has the others follow that
        measured = {name: value.cpu() for name, value in GenerationTask.measure(self, outputs, samples).items()}
        rows: list[dict[str, Any]] = GenerationTask.columns(self, measured, samples).to_pylist()
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
        levels = (127.5 * (outputs.pictures.float() + 1)).round().clamp(0, 255).nan_to_num(0).to(torch.uint8)
        judged = outputs.logits.float().nan_to_num(0).argmax(1)
        return {"levels": levels, "judged": judged, "features": outputs.features.float(), "finite": finite}

    def columns(self, measured: dict[str, Tensor], samples: Sequence[Sample]) -> pa.RecordBatch:
        """Columns of `outcomes`. CellError that names the first sample whose picture holds NaN or Inf."""
        for sample, finite in zip(samples, measured["finite"].tolist(), strict=True):
            if not finite:
                raise CellError(f"the picture of sample {sample.id!r} holds NaN or Inf")
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

    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary | CellError]]:
        """Scores of every cell with 95 % intervals; those to the unreduced model's pictures where these are known."""
        for key in cells:  # no more than one cell's rows are held
            yield key, self._summary(cells[key])

    def _summary(self, rows: pd.DataFrame) -> Summary:
        rows = rows.sort_values("id", ignore_index=True)  # so that sums are rounded alike
        scores = self.score_metrics(rows, {"pictures": len(rows)})
        features = np.stack(rows["features"].tolist()).astype(float) if len(rows) else np.empty((0, 0))
        for name, distance in (("frechet", frechet_distance), ("kernel", kernel_distance)):
            if name in scores:
                continue
            known = len(self.real) > 1
            scores[name] = Score(distance(features, self.real)) if known else Score(None, reason=NO_REAL)
        pairs = paired(rows)
        if pairs is None:
            missing = Score(None, reason="the unreduced model's pictures are not there; run reducer none beside it")
            scores |= dict.fromkeys([*PAIRED, "psnr"], missing)
            return Summary(self._in_order(scores), notes=())
        found = self.score_metrics(pairs, {"pictures": len(rows)})
        scores |= {name: found[name] for name in PAIRED if name in found}
        if "ssim" not in scores:
            scores["ssim"] = Score(None, reason=NO_SSIM)
        different = pairs["mse"][pairs["mse"] > 0]
        same = len(pairs) - len(different)
        scores["psnr"] = Score(None, reason="all pictures are identical")
        if len(different):
            scores["psnr"] = Score(float(np.median(-10 * np.log10(different))))
        note = (f"{same} of {len(pairs)} pictures are the unreduced model's",) if 0 < same < len(pairs) else ()
        return Summary(self._in_order(scores), pairs, note)

    def _in_order(self, scores: Mapping[str, Score]) -> dict[str, Score]:
        return {metric.name: scores[metric.name] for metric in self.shown.metrics if metric.name in scores}

    def further_costs(
        self, model: nn.Module, images: Tensor, backbone: int, count: Callable[..., int]
    ) -> dict[str, float]:
        """Of all calls of the denoiser that a picture takes; guidance doubles their rows."""
        return {"picture": float(backbone * self.steps * (1 if self.guidance == 1 else 2))}
