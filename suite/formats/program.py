"""A reduced model as a program of torch.export: one graph of fixed shapes, which all formats are made of."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from suite.attachment.handle import handle_of
from suite.errors import RequestError

INPUT, OUTPUT = "images", "logits"
"""Names of what goes in and comes out, in every format."""
DYNAMIC = "dynamic"
"""The batch size that stands for any."""


class Portable(nn.Module):
    """The model between float32 images (B, 3, H, W) and float32 logits, whatever it computes in."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.to(self.dtype)).float()


def export_program(model: nn.Module, example: Tensor, dtype: torch.dtype = torch.float32) -> ExportedProgram:
    """The program of `model` in eval mode, with the reducer that is attached to it, for batches such as `example`.

    example: (B, 3, H, W) float32 on the CPU. dtype: what it computes in. The model stays what it was.
    RequestError, one line, for a method whose number of tokens depends on the image.
    """
    return _export(model, example, dtype, None)


def export_dynamic(model: nn.Module, example: Tensor, dtype: torch.dtype = torch.float32) -> ExportedProgram:
    """The same for batches of any size of at least 1; that of `example` decides nothing."""
    pair = example[:1].expand(2, -1, -1, -1).contiguous()  # of a single image, or none, a tracer makes a special case
    return _export(model, pair, dtype, ({0: Dim("batch", min=1)},))


def export_in_place(model: nn.Module, example: Tensor) -> ExportedProgram:
    """The program of `model` as it is, on its device: images and logits are of the type that it computes in."""
    return _trace(copy.deepcopy(model), example, None)


def _export(
    model: nn.Module, example: Tensor, dtype: torch.dtype, shapes: tuple[dict[int, Dim], ...] | None
) -> ExportedProgram:
    # in full: nothing of the model's is converted
    return _trace(Portable(copy.deepcopy(model).to(device="cpu", dtype=dtype), dtype), example, shapes)


def _trace(model: nn.Module, example: Tensor, shapes: tuple[dict[int, Dim], ...] | None) -> ExportedProgram:
    reduced = model.model if isinstance(model, Portable) else model
    check_exportable(reduced)
    if (handle := handle_of(reduced)) is not None:
        handle.forget()
    try:
        with torch.no_grad(), quietly():
            return torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of the exporter, which has many kinds, or of what it follows
        name = handle.reducer.name if handle is not None else type(reduced).__name__
        if shapes is not None:
            raise RequestError(
                f"{name!r} cannot be exported for batches of any size, as its graph was specialised; give --batch N"
            ) from error
        raise RequestError(f"{name!r} cannot be exported: {first_line(error)}") from error


def check_exportable(model: nn.Module) -> None:
    """RequestError, one line, where the reducer that is attached takes out as many tokens as the image decides."""
    handle = handle_of(model)
    if handle is not None and handle.planned_counts is None:
        raise RequestError(
            f"reducer {handle.reducer.name!r} cannot be exported: how many tokens stay depends on the image, and an "
            "exported graph has fixed shapes; choose a method with a fixed schedule"
        )


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters tell their developers; what fails is raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
