"""What all segmentation tasks share: windows of an image, the class of each of its pixels, what masks add up to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor, nn

from suite.contract.metric import Cost, Metric, Need, TaskReport
from suite.contract.task import ReadError, Sample, Summary, Task
from suite.errors import CellError, RequestError
from suite.stats.aggregates import MeanAccuracy, MeanIoU, PixelAccuracy
from suite.stats.areas import dense_areas
from tasks.mask_digest import mask_digest, position_weights
from tasks.reading.images import UnreadableImage
from tasks.reading.masks import RecentMasks
from tasks.segmentation_scoring import COLUMNS, area_columns, class_areas, iou_metric, metrics, scorer
from tasks.windows import SlidingWindows, class_map, num_windows

RESTORE = ("before_decoder", "after_decoder", "per_block")
LABELLED = (Need("labelled_pixels", 1, "1 labelled pixel"),)
CPU = torch.device("cpu")
NEEDED = ("grid_logits", "decoder_inputs", "decoder", "num_classes", "restore", "pretrained_cfg")


@dataclass(frozen=True)
class WindowScores:
    """Class scores of the patches of windows, `scores` (V, K, h, w), and the windows' side in pixels."""

    scores: Tensor
    window: int

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, some: slice) -> WindowScores:
        return WindowScores(self.scores[some], self.window)


class Segmenter(Protocol):
    """What a segmentation model has."""

    decoder: nn.Module
    restore: str  # one of RESTORE

    def grid_logits(self, images: Tensor) -> Tensor:
        """Class scores (B, K, h, w) of the patches of images (B, 3, H, W)."""

    def decoder_inputs(self, image: Tensor) -> tuple[Tensor | None, ...]:
        """What the decoder is given for images (B, 3, H, W)."""


def _segmenter(model: nn.Module) -> Segmenter:
    return cast(Segmenter, model)  # `check_model` has seen to that


class SegmentationTask(Task):
    """A task whose samples have a class at every pixel, for models that give class scores per patch.

    Task options: `restore`: when tokens that were taken out are given back: 'before_decoder' (default),
    'after_decoder' or 'per_block'.
    """

    shown = TaskReport(
        metrics=(
            Metric("miou", "mIoU (%)", MeanIoU(), needs=LABELLED),
            Metric("aacc", "aAcc (%)", PixelAccuracy(), needs=LABELLED),
            Metric("macc", "mAcc (%)", MeanAccuracy(), needs=LABELLED),
        ),
        costs=(Cost("decoder", "Decoder GFLOPs"), Cost("image", "GFLOPs per image")),
        throughput="crops/s",
        remark="through encoder and decoder; costs are of one crop, GFLOPs per image of all crops of an average image",
    )
    outcomes = pa.schema([("id", pa.string()), ("prediction", pa.string()), *COLUMNS])
    num_classes: ClassVar[int]

    def __init__(self, data: str | None = None, limit: int | None = None, *, restore: str = RESTORE[0]) -> None:
        super().__init__(data, limit)
        if restore not in RESTORE:
            raise RequestError(f"restore {restore!r} is unknown; use {', '.join(RESTORE)}")
        self.restore = restore
        self._recent = RecentMasks()
        self._windows_per_image: dict[int, float] = {}

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Name of every class."""

    @property
    @abstractmethod
    def palette(self) -> Sequence[tuple[int, int, int]]:
        """8-bit RGB of every class, for pictures."""

    @abstractmethod
    def image(self, sample: Sample) -> Image.Image:
        """The RGB image at its original size. Raises ReadError for bad data."""

    @abstractmethod
    def read_truth(self, sample: Sample) -> np.ndarray:
        """(H, W) uint8 classes, 255 where nothing is scored. Raises ReadError for bad data."""

    @abstractmethod
    def size(self, sample: Sample) -> tuple[int, int]:
        """(height, width) in pixels at a fraction of what reading costs. Raises ReadError for bad data."""

    def truth(self, sample: Sample) -> np.ndarray:
        """(H, W) int64 classes, 255 where nothing is scored. Raises ReadError for bad data."""
        return self._truth(sample, CPU).numpy().astype(np.int64)

    def protocol(self) -> dict[str, Any]:
        """When tokens are given back."""
        return {"restore": self.restore}

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model gives scores of this task's classes per patch and scoring works here."""
        hint = f"choose a model such as {self.default_model} with --model"
        if not all(hasattr(model, name) for name in NEEDED):
            raise RequestError(f"task {self.name!r}: {type(model).__name__} gives no class scores per patch; {hint}")
        if model.num_classes != self.num_classes:
            raise RequestError(
                f"task {self.name!r} has {self.num_classes} classes, and the model {model.num_classes}; {hint}"
            )
        iou_metric()

    def configure(self, model: nn.Module) -> None:
        """Tell the model when to give tokens back."""
        _segmenter(model).restore = self.restore

    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> SlidingWindows:
        """The windows that the model takes, normalised as it was trained. `image_size` can only be the window's."""
        return SlidingWindows.of(model, image_size)

    def load(self, sample: Sample, preprocessing: SlidingWindows) -> Tensor:
        """The image's windows, (V, 3, S, S) float32.

        Raises ReadError when it or its mask is missing, damaged or of another kind, or their sizes differ.
        """
        image, truth = self.image(sample), self.read_truth(sample)
        if truth.shape != (image.height, image.width):
            turned = truth.shape == (image.width, image.height)
            remedy = "turn one of them" if turned else "use the size that the mask was made for"
            raise ReadError(
                sample.id,
                sample.path,
                f"the image is {image.width}x{image.height} and its mask {truth.shape[1]}x{truth.shape[0]} pixels; "
                f"{remedy}, or leave both out",
            )
        try:
            return preprocessing(image)
        except UnreadableImage as error:
            raise ReadError(sample.id, sample.path, str(error)) from error

    def predict(self, model: nn.Module, images: Tensor) -> WindowScores:
        """Class scores of the patches of windows (ΣV, 3, S, S)."""
        return WindowScores(_segmenter(model).grid_logits(images), images.shape[-1])

    def predicted_mask(self, outputs: WindowScores, sample: Sample) -> np.ndarray:
        """(H, W) int64 classes of the sample's pixels, from the outputs of all its windows.

        CellError that names the sample if they are of another number or shape, or hold NaN or Inf.
        """
        mask = self._class_map(outputs, sample, self._truth(sample, CPU).shape)
        if not torch.isfinite(outputs.scores).all():
            raise not_finite(sample)
        return mask.cpu().numpy().astype(np.int64)

    def _class_map(self, outputs: WindowScores, sample: Sample, size: Sequence[int]) -> Tensor:
        """(H, W) uint8 classes of the sample's pixels, on the outputs' device."""
        height, width = size
        due = num_windows(height, width, outputs.window)
        found = tuple(outputs.scores.shape)
        if len(found) != 4 or found[:2] != (due, self.num_classes):
            raise CellError(
                f"outputs of shape {found} for the {due} windows of sample {sample.id!r}; expected ({due}, "
                f"{self.num_classes}, h, w)"
            )
        return class_map(outputs.scores, height, width, outputs.window)

    def score(self, outputs: WindowScores, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, prediction (hash of the mask), and the areas of the classes in it and in the truth, in pixels.

        CellError that names the sample for outputs that have no meaning.
        """
        # By the class: one with a score of its own has the others follow that.
        measured = SegmentationTask.measure(self, outputs, samples).cpu()
        rows: list[dict[str, Any]] = SegmentationTask.columns(self, measured, samples).to_pylist()
        return rows

    def measure(self, outputs: WindowScores, samples: Sequence[Sample]) -> Tensor:
        """(B, 2 + 3 num_classes) int64: whether an image's scores are finite, its mask's digest, `class_areas`."""
        device = outputs.scores.device
        truths = [self._truth(sample, device) for sample in samples]
        weights = position_weights(max((truth.numel() for truth in truths), default=0), device)
        measured = torch.empty(len(samples), 2 + 3 * self.num_classes, dtype=torch.int64, device=device)
        first = 0
        for row, sample, truth in zip(measured, samples, truths, strict=True):
            height, width = truth.shape
            last = first + num_windows(height, width, outputs.window)
            mask = self._class_map(outputs[first:last], sample, truth.shape)
            row[0] = torch.isfinite(outputs.scores[first:last]).all()
            row[1] = mask_digest(mask, weights)
            row[2:] = class_areas(mask, truth, self.num_classes).flatten()
            first = last
        if first != len(outputs):
            named = f"the last sample {samples[-1].id!r}" if samples else "no sample"
            raise CellError(f"{len(outputs)} windows, {len(outputs) - first} more than there are up to {named}")
        return measured

    def columns(self, measured: Tensor, samples: Sequence[Sample]) -> pa.RecordBatch:
        """See `score`."""
        numbers = measured.numpy()
        bad = np.flatnonzero(numbers[:, 0] == 0)
        if bad.size:
            raise not_finite(samples[bad[0]])
        ids = pa.array([sample.id for sample in samples], pa.string())
        said = pa.array([f"{bits:016x}" for bits in numbers[:, 1].view(np.uint64).tolist()], pa.string())
        areas = numbers[:, 2:].reshape(len(samples), 3, self.num_classes)
        return pa.RecordBatch.from_arrays([ids, said, *area_columns(areas)], schema=SegmentationTask.outcomes)

    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary | CellError]]:
        """mmsegmentation's mIoU, aAcc and mAcc over all samples of a cell, as fractions, with 95 % intervals."""
        for key in cells:  # no more than one cell's rows are held
            yield key, self._summary(cells[key])

    def _summary(self, rows: pd.DataFrame) -> Summary:
        counts = {"labelled_pixels": sum(map(sum, rows["labelled"]))}
        values = metrics(dense_areas(rows, self.num_classes).sum(axis=0)) if not self.undefined(counts) else {}
        return Summary(self.score_metrics(rows, counts, values))

    def scoring_version(self) -> str:
        """The scorer's release."""
        return scorer()

    def further_costs(
        self, model: nn.Module, images: Tensor, backbone: int, count: Callable[..., int]
    ) -> dict[str, float]:
        """Multiply-accumulates of the decoder per window, and of all per image: windows of an average sample."""
        decoder = self._decoder_macs(model, images, count)
        return {"decoder": decoder, "image": self.windows_per_image(images.shape[-1]) * (backbone + decoder)}

    def _decoder_macs(self, model: nn.Module, images: Tensor, count: Callable[..., int]) -> float:
        if self.restore != "after_decoder":  # the decoder reads all patches of whatever image
            images = images[:1]
        known: dict[tuple[Any, ...], int] = {}
        macs = []
        for image in images.to(next(model.parameters()).device).split(1):
            with torch.inference_mode():
                inputs = _segmenter(model).decoder_inputs(image)
            shapes = tuple(None if value is None else value.shape for value in inputs)
            if shapes not in known:
                known[shapes] = count(_segmenter(model).decoder, *inputs)
            macs.append(known[shapes])
        return fmean(macs)

    def windows_per_image(self, window: int) -> float:
        """Mean number of windows, `window` pixels a side, of the samples whose size can be read."""
        if window not in self._windows_per_image:
            self._windows_per_image[window] = fmean(self._window_counts(window))
        return self._windows_per_image[window]

    def _window_counts(self, window: int) -> Iterator[int]:
        for sample in self.samples:
            try:
                yield num_windows(*self.size(sample), window)
            except (ReadError, UnreadableImage):  # the evaluation records it
                continue

    def _truth(self, sample: Sample, device: torch.device) -> Tensor:
        """`read_truth` on a device."""
        pinned = device.type == "cuda" and torch.cuda.is_available()  # so that it is copied without waiting

        def read() -> Tensor:
            return torch.tensor(self.read_truth(sample), pin_memory=pinned).to(device, non_blocking=True)

        return self._recent.get((sample.id, device), read)


def not_finite(sample: Sample) -> CellError:
    return CellError(f"the class scores of sample {sample.id!r} hold NaN or Inf")
