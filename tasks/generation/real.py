"""Real pictures that FID and KID compare with: a folder of them, or the statistics that somebody made of some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from suite.errors import RequestError
from suite.stats.sets import Moments, moments
from tasks.reading.images import UnreadableImage, decode, is_image

WIDTH = 2048


@dataclass(frozen=True)
class Real:
    """moments: of Inception's features. features: (n, 2048), None where statistics alone are known."""

    moments: Moments
    features: np.ndarray | None

    @property
    def said(self) -> str:
        return "statistics of a file" if self.features is None else f"{len(self.features):,} real pictures"


def check_real(place: str) -> None:
    """RequestError unless it is a folder or an .npz file."""
    path = Path(place)
    if not path.is_dir() and not (path.suffix == ".npz" and path.is_file()):
        raise RequestError(f"real '{place}' is neither a folder of pictures nor an .npz file of mu and sigma")


def read_real(place: str, features_of: Callable[[Tensor], Tensor]) -> Real:
    """features_of: a picture (1, 3, H, W) in [0, 1] -> (1, 2048). Pictures keep their size until the network's resize.

    RequestError for what cannot be read.
    """
    path = Path(place)
    if path.is_file():
        return Real(_statistics(path), None)
    files = sorted(file for file in path.rglob("*") if file.is_file() and is_image(file.name))
    if len(files) < 2:
        raise RequestError(f"real '{place}' holds {len(files)} pictures; two are the least that have a covariance")
    found = [features_of(_picture(file)).double().cpu().numpy() for file in files]
    features = np.concatenate(found)
    return Real(moments(features), features)


def _picture(file: Path) -> Tensor:
    try:
        pixels = np.asarray(decode(file.read_bytes()))
    except (OSError, UnreadableImage) as error:
        raise RequestError(f"real picture '{file}' cannot be read: {error}; take it out") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def _statistics(path: Path) -> Moments:
    try:
        with np.load(path, allow_pickle=False) as stored:
            mean, covariance = (np.asarray(stored[name], np.float64) for name in ("mu", "sigma"))
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"real '{path}' holds no mu and sigma: {error}; make it with pytorch-fid") from error
    if mean.shape != (WIDTH,) or covariance.shape != (WIDTH, WIDTH):
        raise RequestError(f"real '{path}' is of {mean.shape} features, not of Inception's {WIDTH}")
    return Moments(mean, covariance)
