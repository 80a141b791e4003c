"""Captions of COCO's images, and of any images with reference captions, read strictly from a folder, zip or tar."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from suite.contract.choice import evenly_spaced
from suite.contract.task import Sample
from tasks.captioning import CaptioningTask
from tasks.coco.index import build_index
from tasks.reading.image_files import load_image
from tasks.reading.images import TimmPreprocessing
from tasks.reading.trees.opening import open_tree
from tasks.reading.trees.tree import FileTree


class CocoCaption(CaptioningTask):
    """Generated captions, scored against the captions that people wrote.

    `data`: images with COCO's annotations (`annotations/captions_val2014.json`), with Karpathy's splits
    (`dataset_coco.json`), in another form that `tasks.coco.annotations` knows, or with a `captions.json` of
    {"file.jpg": ["caption", ...]} beside them. `limit`: so many images, evenly spaced over their ids, which are sorted
    as text. Task options: `annotations`: the annotation file, a
    name within the data or a path, where it is not found by itself. `split`: of a Karpathy file: 'test' (default, 5000
    images), 'val', 'train' or 'restval'. `num_beams` (1) and `max_new_tokens` (20): see `CaptioningTask`.
    """

    name = "coco-caption"
    default_model = "git_base_coco"
    tree: FileTree

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        annotations: str | None = None,
        split: str | None = None,
        num_beams: int = 1,
        max_new_tokens: int = 20,
    ) -> None:
        super().__init__(data, limit, num_beams=num_beams, max_new_tokens=max_new_tokens)
        self.tree = open_tree(data)
        index = build_index(self.tree, annotations, split)
        self._files, self.notes = index.files, index.notes
        self.samples = evenly_spaced(
            [Sample(id, index.captions[id], self.tree.where(index.files[id])) for id in sorted(index.captions)], limit
        )

    def files(self, sample: Sample) -> Sequence[str]:
        """The image; its captions are its label."""
        return (self._files[sample.id],)

    def load(self, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
        """The preprocessed image, (3, H, W) float32. Raises ReadError when it is missing, damaged or no image."""
        return load_image(self.tree, self._files[sample.id], sample, preprocessing)
