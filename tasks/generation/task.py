"""The kind of task whose samples are pictures that a model draws, each from noise of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from suite.contract.metric import Metric, Need
from suite.contract.task import Sample, Score, Summary, Task
from suite.errors import CellError, RequestError
from suite.stats.aggregates import Mean
from tasks.generation.pairs import SCALES_NEED, similarities
from tasks.reading.options import whole_number

NEEDED = ("draw", "scope_branches", "macs_of_picture", "noise_shape", "wanted_first")
PICTURE, PAIR = Need("pictures", 1, "1 picture"), Need("pictures", 2, "2 pictures")
SSIM = Metric("ssim", "SSIM", Mean("ssim"), scale=1, decimals=3, needs=(PICTURE,))
PSNR = Metric("psnr", "PSNR (dB)", largest=None, scale=1, decimals=1, needs=(PICTURE,))
MSE = Metric("mse", "MSE", Mean("mse"), lower_is_better=True, scale=1, decimals=4, hidden=True, needs=(PICTURE,))
NO_UNREDUCED = "the unreduced model's pictures are not there; run reducer none beside it"
NO_SIMILARITY = "torchmetrics is not installed: pip install 'reducerbench[generation]'"


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
    """A task whose samples are what is to be drawn and a seed, for models that draw.

    Task options: `steps`: of the sampler. `guidance`: 1 draws with the prompt or class alone. `branches`: which
    branches of the denoiser's blocks run on fewer tokens, joined by '+' ('self', 'cross', 'mlp'). `max_downsample`: how
    much coarser than the input a reduced block's tokens may be.
    """

    default_reducers = ("tome_sd", "tofu", "todo", "random", "uniform")
    default_rates = ("r=0.25", "r=0.5", "r=0.75")
    default_batch_size = 16  # a picture's forwards are many: more at once are no faster, and take memory

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
            raise RequestError(f"guidance {guidance!r} is no number of 1 or more; 1 draws with the prompt alone")
        self.steps, self.guidance = whole_number("steps", steps), float(guidance)
        self.branches = tuple(str(branches).split("+"))
        self.max_downsample = whole_number("max_downsample", max_downsample)

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model draws."""
        if not all(hasattr(model, name) for name in NEEDED):
            raise RequestError(
                f"task {self.name!r} needs a model that draws, and {type(model).__name__} does not; "
                f"use one such as {self.default_model}"
            )

    def configure(self, model: nn.Module) -> None:
        drawing: Any = model
        drawing.scope_branches(self.branches, self.max_downsample)

    def protocol(self) -> dict[str, Any]:
        """How pictures are drawn, and where tokens are taken out."""
        names = ("steps", "guidance", "max_downsample")
        return {name: getattr(self, name) for name in names} | {"branches": "+".join(self.branches)}

    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> Noise:
        """What a picture begins with."""
        drawing: Any = model
        return Noise(drawing.noise_shape)

    def load(self, sample: Sample, preprocessing: Noise) -> Tensor:
        """Standard normal noise that follows from the sample alone, the same on every device and in every batch."""
        return preprocessing(self.seed_of(sample))

    @abstractmethod
    def seed_of(self, sample: Sample) -> int:
        """Of a sample's noise."""

    @abstractmethod
    def draw(self, model: Any, noise: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Pictures (B, 3, H, W) of what the samples ask for, in [-1, 1]."""

    def predict(self, model: nn.Module, images: Tensor) -> Any:
        """Pictures of the samples in turn: what takes as long as those that are asked for."""
        return self.predict_samples(model, images, [self.samples[i % len(self.samples)] for i in range(len(images))])

    def drawn_levels(self, model: nn.Module, noise: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Pictures in [-1, 1] of 256 levels: what is looked at is what is kept."""
        return (127.5 * (self.draw(model, noise, samples).float() + 1)).round() / 127.5 - 1

    def combined(
        self,
        rows: pd.DataFrame,
        own: Mapping[str, np.ndarray],
        pairs: pd.DataFrame | None,
        reasons: Mapping[str, str],
        notes: Sequence[str] = (),
    ) -> Summary:
        """Of a cell's rows, columns of what was found of each, and what `paired` says of them.

        reasons: why a metric has no value, by its name; without one the unreduced model's pictures are missing.
        """
        counts, table = {"pictures": len(rows)}, rows.assign(**own)
        scores = self.score_metrics(table, counts)
        if pairs is not None:
            scores |= {name: score for name, score in self.score_metrics(pairs, counts).items() if name not in scores}
            scores["psnr"], said = peak_ratio(pairs["mse"].to_numpy(float))
            notes = [*notes, *said]
        for metric in self.shown.metrics:
            if metric.name not in scores:
                scores[metric.name] = Score(None, reason=reasons.get(metric.name, NO_UNREDUCED))
        samples = table[["id", *own]] if pairs is None else table[["id", *own]].merge(pairs, on="id", how="left")
        in_order = {metric.name: scores[metric.name] for metric in self.shown.metrics}
        return Summary(in_order, samples if len(samples.columns) > 1 else None, tuple(notes))

    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary | CellError]]:
        """Scores of every cell with 95 % intervals; those to the unreduced model's pictures where these are known."""
        for key in cells:  # no more than one cell's rows are held
            yield key, self.summary(cells[key].sort_values("id", ignore_index=True))  # so that sums are rounded alike

    @abstractmethod
    def summary(self, rows: pd.DataFrame) -> Summary:
        """Of one cell, from its rows in the order of their ids."""

    def further_costs(
        self, model: nn.Module, images: Tensor, backbone: int, count: Callable[..., int]
    ) -> dict[str, float]:
        """Of all that makes a picture: see the model's `macs_of_picture`."""
        drawing: Any = model
        found: dict[str, float] = drawing.macs_of_picture(images[:1], backbone, self.steps, self.guidance, count)
        return found


def peak_ratio(mse: np.ndarray) -> tuple[Score, list[str]]:
    """Median PSNR of pictures on [0, 1] that are not the unreduced model's, and how many are."""
    different = mse[mse > 0]
    same = len(mse) - len(different)
    if not len(different):
        return Score(None, reason="all pictures are identical"), []
    notes = [f"{same} of {len(mse)} pictures are the unreduced model's"] if same else []
    return Score(float(np.median(-10 * np.log10(different)))), notes


def levels_of(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] as uint8."""
    return (127.5 * (pictures.float() + 1)).round().clamp(0, 255).nan_to_num(0).to(torch.uint8)


def check_finite(finite: Tensor, samples: Sequence[Sample]) -> None:
    """CellError that names the first sample whose picture holds NaN or Inf; finite: (B,) bool."""
    for sample, known in zip(samples, finite.tolist(), strict=True):
        if not known:
            raise CellError(f"the picture of sample {sample.id!r} holds NaN or Inf")


def lacking_similarity(side: int) -> dict[str, str]:
    """Why pictures whose shorter side is so long have no SSIM or MS-SSIM, by their names."""
    known = similarities(side)
    small = f"pictures of {side} pixels are smaller than the {SCALES_NEED} that five scales need"
    reasons = {"ssim": NO_SIMILARITY, "ms_ssim": small if known else NO_SIMILARITY}
    return {name: reason for name, reason in reasons.items() if name not in known}
