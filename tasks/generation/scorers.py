"""What scores pictures of prompts: networks from local files, each loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from suite.stats.sets import frechet_values, kernel_values
from tasks.generation.networks.clip import ClipScore, clip_lacking, load_clip
from tasks.generation.networks.inception import FidInception, inception_lacking, load_inception
from tasks.generation.networks.lpips import Lpips, load_lpips, lpips_lacking
from tasks.generation.pairs import Measure, read_png
from tasks.generation.real import Real, read_real

AT_ONCE = 16  # pictures that a network sees together
NO_REAL = "real pictures are not given; name a folder of them, or an .npz of mu and sigma, with --task-option real=PATH"
NO_FEATURES = "real pictures are known by their statistics alone; give a folder of them"
NO_REWARD = (
    "its network (BLIP with a reward head, of package image-reward) is in no package that is used here, so its weights "
    "alone would not do"
)


class Scorers:
    """folder: of the networks' files. real: folder of real pictures or file of their statistics, if any is named."""

    def __init__(self, folder: Path, real: str | None) -> None:
        self.folder, self.place = folder, real
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def lacking(self) -> dict[str, str]:
        """Why a metric has no value here, by its name; those that have one are not in it."""
        inception = NO_REAL if self.place is None else inception_lacking(self.folder)
        statistics = self.place is not None and Path(self.place).is_file()
        found = {
            "fid": inception,
            "kid": inception or (NO_FEATURES if statistics else ""),
            "clip_score": clip_lacking(self.folder),
            "lpips": lpips_lacking(self.folder),
            "image_reward": NO_REWARD,
        }
        return {name: reason for name, reason in found.items() if reason}

    def distances(self, rows: pd.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Influences (n,) of every row's picture on the distances that are named, 'fid' and 'kid'."""
        features = torch.cat([self._features(pictures) for pictures in batches(rows)]).double().cpu().numpy()
        found = {}
        if "fid" in names:
            found["fid_influence"] = frechet_values(features, self._real.moments)
        if "kid" in names and self._real.features is not None:
            found["kid_influence"] = kernel_values(features, self._real.features)
        return found

    def said_of_real(self) -> str:
        return self._real.said

    def clip_scores(self, rows: pd.DataFrame, prompts: Sequence[str]) -> np.ndarray:
        """(n,) of every row's picture with its prompt."""
        found, start = [], 0
        for pictures in batches(rows):
            levels = (255 * pictures).round().to(torch.uint8)
            found.append(self._clip(levels, prompts[start : start + len(levels)]).double().cpu())
            start += len(levels)
        return torch.cat(found).numpy()

    @property
    def lpips(self) -> Measure:
        network = self._lpips

        def measure(first: Tensor, second: Tensor) -> Tensor:
            with torch.inference_mode():
                found: Tensor = network(first.float().to(self.device), second.float().to(self.device))
            return found.cpu()

        return measure

    def _features(self, pictures: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = self._inception(pictures.float().to(self.device))
        return found

    @cached_property
    def _inception(self) -> FidInception:
        return load_inception(self.folder).to(self.device)

    @cached_property
    def _lpips(self) -> Lpips:
        return load_lpips(self.folder).to(self.device)

    @cached_property
    def _clip(self) -> ClipScore:
        score = load_clip(self.folder)
        score.model.to(self.device)
        return score

    @cached_property
    def _real(self) -> Real:
        return read_real(str(self.place), self._features)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}  # no networks


def batches(rows: pd.DataFrame) -> Iterator[Tensor]:
    """The rows' pictures (B, 3, H, W) float64 in [0, 1], a few at a time."""
    for start in range(0, len(rows), AT_ONCE):
        part = rows["picture"].iloc[start : start + AT_ONCE]
        yield torch.from_numpy(np.stack([read_png(data) for data in part]))
