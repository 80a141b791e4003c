"""Pictures of prompts, or of ImageNet's classes, by a pipeline of diffusers; scored by the field's metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from torch import Tensor, nn

from suite.contract.choice import evenly_spaced
from suite.contract.metric import Cost, Metric, Need, TaskReport
from suite.contract.task import Sample, Summary
from suite.errors import CellError, RequestError
from suite.stats.aggregates import Mean, MeanOfInfluence
from tasks.generation.networks.files import network_folder
from tasks.generation.networks.lpips import SMALLEST
from tasks.generation.pairs import Measure, paired, png, read_png
from tasks.generation.prompts import IMAGENET, read_prompts
from tasks.generation.real import check_real
from tasks.generation.scorers import Scorers
from tasks.generation.task import (
    MSE,
    PICTURE,
    PSNR,
    SSIM,
    GenerationTask,
    check_finite,
    lacking_similarity,
    levels_of,
)
from tasks.reading.options import whole_number

FID_NEED, KID_NEED = Need("pictures", 1000, "1,000 pictures"), Need("pictures", 100, "100 pictures")
"""Ours: with fewer, the bias of the first is larger than what methods differ by, and the second says nothing."""
METRICS = (
    Metric("fid", "FID", MeanOfInfluence("fid_influence"), True, largest=None, scale=1, decimals=2, needs=(FID_NEED,)),
    Metric("kid", "KID x 1000", MeanOfInfluence("kid_influence"), True, largest=None, scale=1000, needs=(KID_NEED,)),
    Metric("clip_score", "CLIP score", Mean("clip_score"), largest=100, scale=1, decimals=2, needs=(PICTURE,)),
    Metric("image_reward", "ImageReward", Mean("image_reward"), largest=None, scale=1, decimals=3, needs=(PICTURE,)),
    Metric("lpips", "LPIPS", Mean("lpips"), True, largest=None, scale=1, decimals=3, needs=(PICTURE,)),
    SSIM,
    Metric("ms_ssim", "MS-SSIM", Mean("ms_ssim"), scale=1, decimals=3, needs=(PICTURE,)),
    PSNR,
    MSE,
)
FIRST = "First picture (s)"
COSTS = (
    Cost("text", "Text GMACs"),
    Cost("picture", "Denoiser GMACs/picture"),
    Cost("decoder", "Decoder GMACs"),
    Cost("whole", "GMACs/picture"),
)


class Generation(GenerationTask):
    """Pictures by a pipeline of diffusers in a local folder (`--model FOLDER`, or a name and `--checkpoint FOLDER`).

    `data`: a .txt file, a prompt a line; a .csv file (id, prompt, seed); captions of COCO's images (.json), the first
    of every image in the order of their ids; left out: ImageNet's classes. `limit`: so many pictures, evenly spaced.
    Task options: `seeds`: pictures of every prompt. `template`: of ImageNet's prompts ('a photo of a {}'). `real`: what
    FID and KID compare with, a folder of pictures or an .npz file of mu and sigma. `networks`: folder of what scores,
    default `generation` in the cache folder. `steps`, `guidance`, `branches`, `max_downsample`: see `GenerationTask`.
    """

    name = "generation"
    default_model = "stable-diffusion-v1-5"
    shown = TaskReport(METRICS, COSTS, "pictures/s", part="denoiser", first=FIRST)
    outcomes = pa.schema([("id", pa.string()), ("prediction", pa.string()), ("picture", pa.binary())])
    beside = ("picture",)

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        seeds: int = 1,
        template: str = "a photo of a {}",
        real: str | None = None,
        networks: str | None = None,
        steps: int = 50,
        guidance: float = 7.5,
        branches: str = "self",
        max_downsample: int = 1,
    ) -> None:
        options = {"steps": steps, "guidance": guidance, "branches": branches, "max_downsample": max_downsample}
        super().__init__(data, limit, **options)  # type: ignore[arg-type]
        if real is not None:
            check_real(real)
        self.scorers = Scorers(network_folder(networks), real)
        prompts, self.source = read_prompts(data, template)
        self.texts: dict[str, str] = {}
        self.given: dict[str, int] = {}
        samples = []
        for prompt in prompts:
            for number in range(whole_number("seeds", seeds)):
                sample = Sample(f"{prompt.id}/{number}", prompt.label)
                self.texts[sample.id] = prompt.text
                if prompt.seed is not None:
                    self.given[sample.id] = prompt.seed + number
                samples.append(sample)
        self.samples = evenly_spaced(samples, limit)
        self.shown = self._report()  # type: ignore[misc]

    def _report(self) -> TaskReport:
        """The scores that there are here first: methods are compared by the first. FID says of how many pictures."""
        count, lacking = len(self.samples), self._reasons()
        metrics = [
            replace(metric, label=f"FID ({count:,})") if metric.name == "fid" else metric
            for metric in sorted(METRICS, key=lambda metric: metric.name in lacking)
        ]
        remark = (
            "pictures by the whole pipeline, of which text encoder and decoder are never reduced. FID is of as many "
            "pictures as its head says and falls with their number, KID does not. LPIPS (AlexNet), SSIM, MS-SSIM and "
            "PSNR (median): to the unreduced model's picture of the same prompt and seed. With fused attention, half "
            "of the tokens less of Stable Diffusion at 512 pixels was published as x 1.01, without it as x 1.87"
        )
        return TaskReport(tuple(metrics), COSTS, "pictures/s", remark, part="denoiser", first=FIRST)

    def _reasons(self) -> dict[str, str]:
        """Why scores have no value here, by their names: for want of a file, or of pictures."""
        counts = {"pictures": len(self.samples)}
        few = {metric.name: metric.undefined(counts) for metric in METRICS}
        return {name: reason for name, reason in few.items() if reason} | self.scorers.lacking()

    def protocol(self) -> dict[str, Any]:
        """How pictures are drawn, and a digest of the prompts and of the seeds that are given."""
        drawn = [[sample.id, self.texts[sample.id], self.given.get(sample.id)] for sample in self.samples]
        digest = hashlib.sha256(repr(drawn).encode()).hexdigest()[:16]
        return {**super().protocol(), "prompts": f"{self.source} ({digest})"}

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model is a pipeline, and draws what is asked for."""
        super().check_model(model)
        by_class = getattr(model, "by_class", None)
        if by_class is None:
            raise RequestError(f"task {self.name!r} needs a pipeline; name the folder of one with --model")
        if by_class and self.source != IMAGENET:
            raise RequestError(f"this pipeline draws ImageNet's classes, not prompts; leave data '{self.data}' out")

    def seed_of(self, sample: Sample) -> int:
        """The one that is given, else 32 bits of a digest of the sample's id."""
        digest = hashlib.blake2b(sample.id.encode(), digest_size=4).digest()
        return self.given.get(sample.id, int.from_bytes(digest, "big"))

    def draw(self, model: Any, noise: Tensor, samples: Sequence[Sample]) -> Tensor:
        wanted = [sample.label if model.by_class else self.texts[sample.id] for sample in samples]
        seeds = [self.seed_of(sample) for sample in samples]
        drawn: Tensor = model.draw(noise, wanted, self.steps, self.guidance, seeds)
        return drawn

    def predict_samples(self, model: nn.Module, images: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], of 256 levels."""
        return self.drawn_levels(model, images, samples)

    def score(self, outputs: Tensor, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, prediction (digest of the pixels) and picture (PNG)."""
        measured = {name: value.cpu() for name, value in Generation.measure(self, outputs, samples).items()}
        rows: list[dict[str, Any]] = Generation.columns(self, measured, samples).to_pylist()
        return rows

    def measure(self, outputs: Tensor, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """See `columns`. CellError for shapes that cannot be meant."""
        if not isinstance(outputs, Tensor) or outputs.dim() != 4 or len(outputs) != len(samples):
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            first = samples[0].id if samples else "none"
            raise CellError(f"the model returned {found} in place of {len(samples)} pictures from {first!r} on")
        return {"levels": levels_of(outputs), "finite": outputs.isfinite().flatten(1).all(1)}

    def columns(self, measured: dict[str, Tensor], samples: Sequence[Sample]) -> pa.RecordBatch:
        """Columns of `outcomes`. CellError that names the first sample whose picture holds NaN or Inf."""
        check_finite(measured["finite"], samples)
        pictures = list(measured["levels"].numpy())
        columns = {
            "id": pa.array([sample.id for sample in samples], pa.string()),
            "prediction": [hashlib.blake2b(levels.tobytes(), digest_size=8).hexdigest() for levels in pictures],
            "picture": pa.array([png(levels) for levels in pictures], pa.binary()),
        }
        return pa.RecordBatch.from_pydict(columns, schema=self.outcomes)

    def summary(self, rows: pd.DataFrame) -> Summary:
        reasons, notes = self._reasons(), list[str]()
        side = min(read_png(rows["picture"].iloc[0]).shape[1:]) if len(rows) else 0
        reasons |= lacking_similarity(side)
        if side < SMALLEST:
            reasons["lpips"] = f"pictures of {side} pixels are smaller than the {SMALLEST} that AlexNet needs"
        own: dict[str, np.ndarray] = {}
        measures: dict[str, Measure] = {}

        def found(*names: str) -> list[str]:
            return [name for name in names if name not in reasons and len(rows)]

        if distances := found("fid", "kid"):
            with unless_unusable(distances, reasons):
                own |= self.scorers.distances(rows, distances)
                notes.append(f"FID and KID: {len(rows):,} pictures against {self.scorers.said_of_real()}")
        if found("clip_score"):
            with unless_unusable(["clip_score"], reasons):
                own["clip_score"] = self.scorers.clip_scores(rows, [self.texts[id] for id in rows["id"]])
        if found("lpips"):
            with unless_unusable(["lpips"], reasons):
                measures["lpips"] = self.scorers.lpips
        return self.combined(rows, own, paired(rows, measures), reasons, notes)

    def scorable(self) -> Collection[str]:
        """What can be scored here: with a network's file put in place later, scores that were unknown are made."""
        reasons = self._reasons()
        return [name for name in ("fid", "kid", "clip_score", "lpips") if name not in reasons]


@contextmanager
def unless_unusable(names: Sequence[str], reasons: dict[str, str]) -> Iterator[None]:
    """A file that cannot be used is the reason why scores have no value, and leaves the others as they are."""
    try:
        yield
    except RequestError as error:
        reasons |= dict.fromkeys(names, str(error))
