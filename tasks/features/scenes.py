"""Features of the embedded scenes, with their training split as the bank: nothing to download."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from suite.contract.task import Sample
from suite.errors import RequestError
from tasks.features.protocols import LABELLED, PROTOCOLS
from tasks.features.task import BANKS, FeatureTask, report_of
from tasks.reading.images import TimmPreprocessing
from tasks.reading.options import whole_number
from tasks.scenes.generator import CLASS_NAMES, scene_label
from tasks.scenes.samples import load_scene, scene_samples

BANK = "train"


class SceneFeatures(FeatureTask):
    """Features of embedded scenes, judged by the nearest scenes of the training split and by the unreduced model's.

    `limit`: so many scenes, evenly spaced. Task options: `split`: 'test' (default) or 'val'. `scenes`: how many of it
    there are (1000). `bank`: scenes of the training split (4096). `bank_by`: 'reduced' (default: by the same reducer at
    the same rate) or 'unreduced'. `protocols`:
    'knn,retrieval,probe,fidelity' or some of these; methods are compared by the first.
    """

    name = "scenes_features"
    drawn = "scenes"
    default_model = "scenes_vit"
    class_names = CLASS_NAMES
    offered = LABELLED
    shown = report_of([PROTOCOLS[name] for name in LABELLED])

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        split: str = "test",
        scenes: int = 1000,
        bank: int = 4096,
        bank_by: str = BANKS[0],
        protocols: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(data, limit, protocols, bank_by)
        if split == BANK:
            raise RequestError("split 'train' is the bank; use test or val")
        self.samples = scene_samples(self, split, scenes, scene_label)
        self.support = [Sample(f"{BANK}/{i:05d}", scene_label(BANK, i)) for i in range(whole_number("bank", bank))]

    def load(self, sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
        """The drawn and preprocessed scene, (3, H, W) float32."""
        return load_scene(sample, preprocessing)
