"""An ONNX model in 8-bit integers, by the post-training quantisation of ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from suite.formats.packages import require
from suite.formats.program import INPUT

OPERATORS = ("MatMul", "Gemm", "Conv")
"""What is quantised: products with weights, and those of attention. Norms, softmax and what a method compares stay."""
METHOD = (
    "static, ranges by minimum and maximum, weights symmetric per channel, activations asymmetric per tensor, of "
    f"{', '.join(OPERATORS)}"
)


def quantise(model: Any, calibration: Tensor) -> Any:
    """The `onnx.ModelProto` with products of 8-bit integers.

    calibration: (N, 3, H, W) images of the task, whose activations the ranges are taken of; as many at a time as the
    model's batch has, the rest of N left out. RequestError without the packages.
    """
    require("onnx", "onnxruntime")
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder, without_advice():
        plain, prepared, file = (Path(folder) / name for name in ("plain.onnx", "prepared.onnx", "int8.onnx"))
        plain.write_bytes(model.SerializeToString())
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            file,
            batches_of(model, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(file)


def batches_of(model: Any, calibration: Tensor) -> Any:
    """The images as ONNX Runtime's quantiser asks for them, in the model's batch size; one by one where that is any."""
    from onnxruntime.quantization import CalibrationDataReader

    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    images = calibration.numpy()
    if len(images) < size:
        images = np.resize(images, (size, *images.shape[1:]))  # repeated in turn

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[int] = iter(range(0, len(images) - size + 1, size))

        def get_next(self) -> dict[str, np.ndarray] | None:
            first = next(self.left, None)
            return None if first is None else {INPUT: images[first : first + size]}

    return Batches()


@contextmanager
def without_advice() -> Iterator[None]:
    """The quantiser writes to the root logger how else models could be prepared."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
