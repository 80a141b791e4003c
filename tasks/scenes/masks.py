"""The class of every pixel of the embedded scenes, with nothing to download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from suite.contract.task import Sample
from tasks.scenes.drawing import COLOURS, SHAPES, SIDE, paint_colour
from tasks.scenes.generator import CLASS_NAMES, VERSION, draw_scene, scene_mask
from tasks.scenes.samples import TRAINING, scene_place, scene_samples
from tasks.segmentation import RESTORE, SegmentationTask

GROUND = (60, 60, 60)


class ScenesSeg(SegmentationTask):
    """Masks of embedded scenes: the background, and colour and shape of the object that is seen at a pixel.

    `limit`: so many scenes, evenly spaced. Task options: `split`: 'test' (default), 'val' or 'train'. `scenes`: how
    many scenes of the split there are (300); more can be asked for without end. `restore`: see `SegmentationTask`.
    """

    name = "scenes-seg"
    drawn = "scenes"
    default_model = "scenes_segmenter"
    training = TRAINING
    num_classes = 1 + len(CLASS_NAMES)
    class_names = ("background", *CLASS_NAMES)

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        split: str = "test",
        scenes: int = 300,
        restore: str = RESTORE[0],
    ) -> None:
        super().__init__(data, limit, restore=restore)
        self.samples = scene_samples(self, split, scenes, _name_of_mask)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The objects' own colours, each shape in a shade of its own, and grey for the background."""
        shades = [(0.95 - 0.4 * (i % 2), 1 - 0.55 * (i // 2) / (len(SHAPES) // 2)) for i in range(len(SHAPES))]
        paints = [paint_colour(hue, *shade) for shade in shades for hue in COLOURS.values()]
        return (GROUND, *(tuple(np.rint(255 * paint).astype(int).tolist()) for paint in paints))

    def image(self, sample: Sample) -> Image.Image:
        """The drawn scene, 112 x 112 pixels."""
        return Image.fromarray(draw_scene(*scene_place(sample)).image)

    def read_truth(self, sample: Sample) -> np.ndarray:
        """(112, 112) uint8: 0 = background, 1 + class of the object that is seen."""
        return scene_mask(*scene_place(sample))

    def size(self, sample: Sample) -> tuple[int, int]:
        """That of all scenes."""
        return SIDE, SIDE


def _name_of_mask(split: str, index: int) -> str:
    return f"v{VERSION}/{split}/{index:05d}"
