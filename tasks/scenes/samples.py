"""Scenes as the samples of a task: which there are, and how one is read."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from PIL import Image
from torch import Tensor

from suite.contract.choice import evenly_spaced
from suite.contract.task import Sample, Task
from suite.errors import RequestError
from tasks.reading.images import TimmPreprocessing
from tasks.reading.options import whole_number
from tasks.scenes.generator import SPLITS, draw_scene

TRAINING = MappingProxyType({"split": "train", "scenes": 8192})


def scene_samples(task: Task, split: str, scenes: int, label: Callable[[str, int], Any]) -> list[Sample]:
    """The samples of a task of scenes: its `limit` of the split's first `scenes`, with what `label` says of each.

    RequestError for a task that was given data, and for a split or a number that is none.
    """
    if task.data is not None:
        raise RequestError(f"data '{task.data}': task '{task.name}' draws its own pictures; leave data out")
    if split not in SPLITS:
        raise RequestError(f"split '{split}' is unknown; use {', '.join(SPLITS)}")
    indices = evenly_spaced(range(whole_number("scenes", scenes)), task.limit)
    return [Sample(f"{split}/{i:05d}", label(split, i)) for i in indices]


def scene_place(sample: Sample) -> tuple[str, int]:
    """Split and index of a sample of `scene_samples`."""
    split, index = sample.id.split("/")
    return split, int(index)


def load_scene(sample: Sample, preprocessing: TimmPreprocessing) -> Tensor:
    """The drawn and preprocessed scene, (3, H, W) float32."""
    return preprocessing(Image.fromarray(draw_scene(*scene_place(sample)).image))
