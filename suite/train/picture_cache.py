"""Pictures of a task before any preparation, read once: to draw a scene or decode a photograph costs more than to
augment it."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suite.contract.task import Sample, Task

MOST_BYTES = 2**30


class Kept:
    """Arrays that were read, up to `most` bytes in a process. It pickles without them.

    Those that came first stay: in passes over more than fits, to make room for the newest would throw out the very one
    that is needed next, every time.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.most, self.bytes = most, 0
        self._arrays: dict[Hashable, np.ndarray] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"most": self.most, "bytes": 0, "_arrays": {}}

    def get(self, key: Hashable, read: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of `key`, read unless it is kept; not to be written to. Raises what `read` raises."""
        found = self._arrays.get(key)
        if found is None:
            found = read()
            if self.bytes + found.nbytes <= self.most:
                self._arrays[key] = found
                self.bytes += found.nbytes
        return found


class Pictures:
    """The images of a task's samples. kept: where they are, shared with whatever else is to count against its bytes."""

    def __init__(self, task: Task, kept: Kept | None = None) -> None:
        self.task, self.kept = task, Kept() if kept is None else kept

    def image(self, sample: Sample) -> Image.Image:
        """The RGB image at its original size, as the task reads it. Raises ReadError for bad data."""
        return Image.fromarray(self.kept.get(sample.id, lambda: self.task.load(sample, pixels).numpy()))


def pixels(image: Image.Image) -> Tensor:
    """In place of a model's preprocessing: (H, W, 3) uint8 of an RGB image."""
    return torch.from_numpy(np.array(image))
