"""Classes of the embedded scenes: the main object of a picture, with nothing to download."""

from __future__ import annotations

from torch import Tensor, nn

from suite.contract.task import Sample
from tasks.classification import ClassificationTask
from tasks.reading.images import TimmPreprocessing
from tasks.scenes.generator import CLASS_NAMES, NUM_CLASSES, scene_label
from tasks.scenes.samples import TRAINING, load_scene, scene_samples


class Scenes(ClassificationTask):
    """Class of the main object of embedded scenes: nothing to download, nothing to read.

    `limit`: so many scenes, evenly spaced. Task options: `split`: 'test' (default), 'val' or 'train'. `scenes`: how
    many scenes of the split there are (1000); more can be asked for without end.
    """

    name = "scenes"
    drawn = "scenes"
    default_model = "scenes_vit"
    training = TRAINING
    num_classes = NUM_CLASSES
    class_names = CLASS_NAMES

    def __init__(
        self, data: str | None = None, limit: int | None = None, *, split: str = "test", scenes: int = 1000
    ) -> None:
        super().__init__(data, limit)
        self.samples = scene_samples(self, split, scenes, scene_label)

    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> TimmPreprocessing:
        """timm's evaluation preprocessing of the model: for the embedded one, mean and standard deviation alone."""
        return TimmPreprocessing.of(model, image_size)

    def load(self, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
        """The drawn and preprocessed scene, (3, H, W) float32."""
        return load_scene(sample, preprocessing)
