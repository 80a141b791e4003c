"""Sliding windows: an image of any size is cut for a model that takes one size, and the scores are joined again.

As mmsegmentation does for Segmenter (`Resize(scale=(2048, 512), keep_ratio=True)`, slide inference, scores resized to
the size that the image has on disk), with a stride of one window, as Segmenter's authors have it. One thing differs: an
image with a side that is shorter than the window is padded, where mmsegmentation would show the model a smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from suite.errors import RequestError
from tasks.reading.images import UnreadableImage, as_picture

LONGEST = 4  # windows along an image's long side, at most
AT_ONCE = 2**27  # class scores at full size that are held at a time: those of all classes of a photograph are gigabytes


class Pretrained(Protocol):
    """What timm's models have, and ours."""

    pretrained_cfg: Mapping[str, Any]


@dataclass(frozen=True)
class SlidingWindows:
    """The windows of an image, for one model. Equal values give equal tensors: cells can share them.

    window: side and stride in pixels. mean, std: of RGB in [0, 1].
    """

    window: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, model: nn.Module, image_size: int | None = None) -> SlidingWindows:
        """What the model's `pretrained_cfg` says. RequestError for a window that is not square, or an `image_size`
        (pixels) that is not the window's."""
        config = cast(Pretrained, model).pretrained_cfg
        _, height, width = config["input_size"]
        if height != width:
            raise RequestError(f"the model takes windows of {width}x{height}; only square ones are supported")
        if image_size not in (None, height):
            raise RequestError(
                f"image_size={image_size}: the model takes windows of {height} pixels, and larger images are cut into "
                "several; leave image_size out"
            )
        return cls(int(height), tuple(map(float, config["mean"])), tuple(map(float, config["std"])))

    def __call__(self, image: Image.Image) -> Tensor:
        """(V, 3, S, S) float32 of an RGB image: row by row from the top left.

        Raises UnreadableImage for an absurd aspect ratio.
        """
        pixels = torch.from_numpy(_resize(np.asarray(image), self.window).copy()).permute(2, 0, 1)
        mean, std = self._statistics()
        _, height, width = pixels.shape
        normalised = pixels.float().div(255).sub(mean).div(std)
        padded = F.pad(normalised, (0, max(0, self.window - width), 0, max(0, self.window - height)))
        places = _places(height, width, self.window)
        return torch.stack([padded[:, y : y + self.window, x : x + self.window] for y, x in places])

    def picture(self, view: Tensor) -> np.ndarray:
        """One of the windows, (3, S, S), as people see it: (S, S, 3) uint8."""
        return as_picture(view, self.mean, self.std)

    def joined_pictures(self, pictures: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
        """Pictures of all windows of an image (S, S, 3) uint8 as one of its original size; the last one is on top."""
        resized = resized_size(height, width, self.window)
        whole = np.zeros((*(max(side, self.window) for side in resized), 3), dtype=np.uint8)
        for picture, (y, x) in zip(pictures, _places(*resized, self.window), strict=True):
            whole[y : y + self.window, x : x + self.window] = picture
        image = Image.fromarray(whole[: resized[0], : resized[1]])
        return np.asarray(image.resize((width, height), Image.Resampling.NEAREST))

    def _statistics(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.mean)[:, None, None], torch.tensor(self.std)[:, None, None]


def resized_size(height: int, width: int, window: int) -> tuple[int, int]:
    """(height, width) in pixels that windows are cut from: the short side is one window, unless the long one would
    exceed `LONGEST` windows. As `mmcv.rescale_size` rounds it.

    Raises UnreadableImage for a sliver of which nothing would be left.
    """
    scale = min(LONGEST * window / max(height, width), window / min(height, width))
    resized = int(height * scale + 0.5), int(width * scale + 0.5)
    if not all(resized):
        raise UnreadableImage(f"aspect ratio {width}:{height} leaves nothing when the long side is {LONGEST} windows")
    return resized


def num_windows(height: int, width: int, window: int) -> int:
    """How many windows an image of this original size has."""
    rows, columns = resized_size(height, width, window)
    return len(_starts(rows, window)) * len(_starts(columns, window))


def class_map(scores: Tensor, height: int, width: int, window: int) -> Tensor:
    """The class of every pixel of an image, (height, width) uint8, from class scores of its windows (V, K, h, w).

    Scores are resized bilinearly to the window, averaged where windows overlap, and resized again to the image's
    original size; the first of equally likely classes is taken. K is at most 256.
    """
    step = max(1, min(64, AT_ONCE // (height * width)))

    def likeliest_of(first: int) -> tuple[Tensor, Tensor]:
        value, index = _join(scores[:, first : first + step].float(), height, width, window)[0].max(dim=0)
        return value, index + first

    best, likeliest = likeliest_of(0)
    for first in range(step, scores.shape[1], step):
        value, index = likeliest_of(first)
        better = value > best
        best, likeliest = torch.where(better, value, best), torch.where(better, index, likeliest)
    return likeliest.to(torch.uint8)


def _resize(pixels: np.ndarray, window: int) -> np.ndarray:
    """(H, W, 3) uint8 at its `resized_size`, by mmcv, which does not smooth before it makes an image smaller."""
    height, width, _ = pixels.shape
    if resized_size(height, width, window) == (height, width):
        return pixels
    from mmcv.image import imrescale  # takes a second

    resized: np.ndarray = imrescale(pixels, (LONGEST * window, window), interpolation="bilinear", backend="cv2")
    return resized


def _places(height: int, width: int, window: int) -> list[tuple[int, int]]:
    """(top, left) of the windows of an image of this size, which is the resized one."""
    return [(y, x) for y in _starts(height, window) for x in _starts(width, window)]


def _starts(length: int, window: int) -> list[int]:
    """Where windows begin along a side; the last is moved back to end with the image."""
    last = max(length - window, 0)
    return [min(i * window, last) for i in range(math.ceil(last / window) + 1)]


def _join(scores: Tensor, height: int, width: int, window: int) -> Tensor:
    """Scores of windows (V, K, h, w) as those of the whole image, (1, K, height, width)."""
    views = _enlarge(scores, (window, window))
    resized = resized_size(height, width, window)
    if resized == (window, window):
        joined = views
    else:
        rows, columns = (max(side, window) for side in resized)
        padded = (1, views.shape[1], rows, columns)
        joined = torch.empty(padded, device=views.device, memory_format=torch.channels_last).zero_()
        times = views.new_zeros((rows, columns))
        for view, (y, x) in zip(views, _places(rows, columns, window), strict=True):
            joined[..., y : y + window, x : x + window] += view
            times[y : y + window, x : x + window] += 1
        joined = joined.div_(times)[..., : resized[0], : resized[1]]
    return joined if resized == (height, width) else _enlarge(joined, (height, width))


def _enlarge(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinearly resized (B, K, h, w). With classes last in memory this is four times as fast on a CPU."""
    scores = scores.contiguous(memory_format=torch.channels_last)
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)
