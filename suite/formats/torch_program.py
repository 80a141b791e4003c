"""A program as torch.export saves it, for PyTorch without our code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from suite.formats.base import FP16, FP32, Format, Session
from suite.formats.program import quietly


class TorchExport(Format):
    """A file of torch.export, run by PyTorch."""

    name, suffix = "torch-export", ".pt2"
    precisions = (FP32, FP16)
    why_not_int8 = "PyTorch quantises programs by torchao, which is no part of it"

    def write(self, program: ExportedProgram, file: Path, calibration: Tensor | None) -> list[Path]:
        with quietly():
            torch.export.save(program, file)
        return [file]

    def open(self, file: Path, threads: int) -> Session:
        """`threads` is PyTorch's own setting, of the whole process."""
        torch.set_num_threads(threads)
        with quietly():
            module = torch.export.load(file).module()

        def run(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return module(torch.from_numpy(images)).numpy()

        return run
