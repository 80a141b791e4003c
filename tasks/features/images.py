"""Features of images of which nothing else is known: for whoever's task is not in the list."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from suite.contract.choice import evenly_spaced
from suite.contract.task import Sample
from suite.errors import RequestError
from tasks.features.protocols import PROTOCOLS, UNLABELLED
from tasks.features.task import FeatureTask, report_of
from tasks.reading.image_files import load_image
from tasks.reading.images import TimmPreprocessing, is_image, undecoded
from tasks.reading.trees.opening import open_shards
from tasks.reading.trees.parquet import ParquetTree
from tasks.reading.trees.tree import FileTree


class ImageFeatures(FeatureTask):
    """How near a reduced model's features are to the unreduced model's, on any images: no label is read.

    `data`: a folder, zip or tar of images, however they lie in it, or shards as of task 'imagenet'. `limit`: so many of
    them, evenly spaced over the order of their names. Task options: `protocols`: 'fidelity'.
    """

    name = "image_features"
    default_model = "vit_small_patch14_dinov2"
    offered = UNLABELLED
    shown = report_of([PROTOCOLS[name] for name in UNLABELLED])
    tree: FileTree

    def __init__(
        self, data: str | None = None, limit: int | None = None, *, protocols: str | Sequence[str] | None = None
    ) -> None:
        super().__init__(data, limit, protocols)
        self.tree = open_shards(data)
        names = [name for name in self.tree.files if isinstance(self.tree, ParquetTree) or is_image(name)]
        if not names:
            raise RequestError(f"data '{data}' holds no image; name a folder, a zip or a tar of images")
        self.samples = evenly_spaced([Sample(name, None, self.tree.where(name)) for name in names], limit)
        self.notes = [*self.tree.notes, *undecoded(names), *self.notes]

    def files(self, sample: Sample) -> Sequence[str]:
        """The image."""
        return (sample.id,)

    def load(self, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
        """The preprocessed image, (3, H, W) float32. Raises ReadError when it is missing, damaged or no image."""
        return load_image(self.tree, sample.id, sample, preprocessing)
