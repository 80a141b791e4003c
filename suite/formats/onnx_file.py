"""A program as ONNX, by PyTorch's exporter, with a translation of what that has none for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from suite.errors import RequestError
from suite.formats.base import Format, Session
from suite.formats.packages import require
from suite.formats.program import INPUT, OUTPUT, first_line, quietly

OPSET = 18
"""What the exporter's operators are written in: nothing is converted afterwards."""
FOLDED = 2**24
"""Entries of the largest table that is computed beforehand."""
INT64 = 7  # by ONNX's numbers of types


class Onnx(Format):
    """ONNX with its weights inside, run by ONNX Runtime."""

    name, suffix = "onnx", ".onnx"
    opset = OPSET
    packages = ("onnx", "onnxscript", "onnxruntime")

    def write(self, program: ExportedProgram, file: Path, calibration: Tensor | None) -> list[Path]:
        from suite.formats.quantised import quantise

        model = to_onnx(program)
        if calibration is not None:
            model = quantise(model, calibration)
        file.write_bytes(model.SerializeToString())
        return [file]

    def open(self, file: Path, threads: int) -> Session:
        return open_onnx(str(file), threads)


def to_onnx(program: ExportedProgram) -> Any:
    """The `onnx.ModelProto` of a program. RequestError without the packages that it takes."""
    require("onnx", "onnxscript")
    try:
        with quietly(), torch.no_grad():
            made = torch.onnx.export(
                program, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, dynamo=True, verbose=False,
                custom_translation_table=translations(),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise RequestError(f"cannot be written as ONNX: {first_line(cause)}") from error
    assert made is not None  # nothing was written by it
    return folded(made.model_proto)


def folded(model: Any) -> Any:
    """With all computed that no image changes: the exporter leaves large tables to the runtime, and OpenVINO (2026.4)
    computes some of integers wrong."""
    from onnxscript import optimizer

    with quietly(), np.errstate(all="ignore"):  # what a selection leaves out may be no number
        return optimizer.optimize(model, input_size_limit=FOLDED, output_size_limit=FOLDED)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """By operator of PyTorch, what makes ONNX of it."""
    from onnxscript import opset18

    op: Any = opset18  # its types know no lists, which it takes

    def sort(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Sequence[Any]:
        """A selection of all: of equal values the lower place comes first, as ONNX defines TopK."""
        length = op.Slice(op.Shape(self), [dim], [dim + 1] if dim != -1 else [2**31])
        return op.TopK(self, length, axis=dim, largest=int(descending), sorted=1)

    def place(ordered: Any, values: Any, out_int32: bool = False, right: bool = False, side: str | None = None) -> Any:
        """By counting what comes before each value: sequences are short."""
        before = op.LessOrEqual if right or side == "right" else op.Less
        last, between = op.Constant(value_ints=[-1]), op.Constant(value_ints=[-2])
        found = before(op.Unsqueeze(ordered, between), op.Unsqueeze(values, last))
        return op.ReduceSum(op.Cast(found, to=INT64), last, keepdims=0)

    return {torch.ops.aten.sort.stable: sort, torch.ops.aten.searchsorted.Tensor: place}


def open_onnx(model: str | bytes, threads: int, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Session:
    """A session of ONNX Runtime. model: a file's path, or what one holds. RequestError without the package."""
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors: what it tells of constants that it folds is nobody's concern
    session = onnxruntime.InferenceSession(model, options, providers=list(providers))
    name = session.get_inputs()[0].name

    def run(images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(None, {name: images})[0]
        return logits

    return run
