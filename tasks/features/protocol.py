"""What scores of features are: one protocol a file, each a few metrics and how their columns follow from features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from suite.contract.metric import Metric


@dataclass(frozen=True)
class Labelled:
    """Features (n, C) float64 with the classes that are right: labels (n, W) int64, the first of a row is the one that
    it teaches."""

    features: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    def is_right(self, classes: np.ndarray) -> np.ndarray:
        """(n, k) bool: whether each of a row's `classes` (n, k) is one of its right ones."""
        right: np.ndarray = (classes[:, :, None] == self.labels[:, None, :]).any(axis=2)
        return right


@dataclass(frozen=True)
class Found:
    """What a cell's forwards made of images: of those that are scored, of the training images, and of the same images
    by the unreduced model, `None` where it has none."""

    samples: Labelled
    bank: Labelled
    unreduced: np.ndarray | None
    notes: list[str] = field(default_factory=list)


class Protocol(ABC):
    """One way to judge features. It has no state, and its columns stand with the samples in the store."""

    name: str
    metrics: Sequence[Metric]
    said: str = ""
    """What a reader must know of the protocol, in one sentence."""

    @abstractmethod
    def columns(self, found: Found) -> dict[str, np.ndarray]:
        """What the metrics are made of: a number a sample, by name. It is asked only where something is scored, and
        what the metrics need is there."""


def normalised(features: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    rows: np.ndarray = np.divide(features, length, out=np.zeros_like(features), where=length > 0)
    return rows
