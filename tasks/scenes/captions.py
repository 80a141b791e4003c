"""Captions of the embedded scenes: generated text against five exact wordings, with nothing to download."""

from __future__ import annotations

from torch import Tensor

from suite.contract.task import Sample
from tasks.captioning import CaptioningTask
from tasks.reading.images import TimmPreprocessing
from tasks.scenes.generator import scene_captions
from tasks.scenes.samples import TRAINING, load_scene, scene_samples


class ScenesCaption(CaptioningTask):
    """Generated captions of embedded scenes, scored against five reference wordings of each.

    `limit`: so many scenes, evenly spaced. Task options: `split`: 'test' (default), 'val' or 'train'. `scenes`: how
    many scenes of the split there are (300); more can be asked for without end. `num_beams` (1) and `max_new_tokens`
    (20, more than any of the wordings has): see `CaptioningTask`.
    """

    name = "scenes-caption"
    drawn = "scenes"
    default_model = "scenes_git"
    training = TRAINING

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        split: str = "test",
        scenes: int = 300,
        num_beams: int = 1,
        max_new_tokens: int = 20,
    ) -> None:
        super().__init__(data, limit, num_beams=num_beams, max_new_tokens=max_new_tokens)
        self.samples = scene_samples(self, split, scenes, scene_captions)

    def load(self, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
        """The drawn and preprocessed scene, (3, H, W) float32."""
        return load_scene(sample, preprocessing)
