"""What a format is: how a program is written as a file, and how that file is run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

FP32, FP16, INT8 = "fp32", "fp16", "int8"
COMPUTED_IN = {FP32: torch.float32, FP16: torch.float16, INT8: torch.float32}
"""What the program that a precision is made of computes in: int8 is made of float32 afterwards."""

Session = Callable[[np.ndarray], np.ndarray]
"""(B, 3, H, W) float32 images -> (B, classes) float32 logits."""


class Format(ABC):
    """A kind of file. The class attributes say what it is; it has no options."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = (FP32, FP16, INT8)
    why_not_int8: ClassVar[str] = ""
    opset: ClassVar[int | None] = None
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules that a plain installation lacks."""

    @abstractmethod
    def write(self, program: ExportedProgram, file: Path, calibration: Tensor | None) -> list[Path]:
        """Write the program and return all files of it, `file` first.

        calibration: (N, 3, H, W) images by which it is quantised to int8; None: it stays in the precision it is in.
        """

    @abstractmethod
    def open(self, file: Path, threads: int) -> Session:
        """The file, ready to be run on the CPU by so many threads, computing in the precision that it is in."""


def in_turns(session: Session, images: np.ndarray, batch: int) -> np.ndarray:
    """(N, 3, H, W) images, N >= 1 -> (N, classes), by forwards of exactly `batch` images; the last one is filled up."""
    count, found = len(images), []
    for first in range(0, count, batch):
        part = images[first : first + batch]
        filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
        found.append(session(np.ascontiguousarray(filled))[: len(part)])
    return np.concatenate(found)
