"""A program as OpenVINO's intermediate representation, which OpenVINO makes of ONNX."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.export import ExportedProgram

from suite.formats.base import Format, Session
from suite.formats.onnx_file import OPSET, to_onnx
from suite.formats.packages import require


class OpenVino(Format):
    """A graph in XML and its weights beside it, run by OpenVINO.

    int8: quantised as ONNX is, and run by OpenVINO's own kernels of 8 bits.
    """

    name, suffix = "openvino", ".xml"
    opset = OPSET
    packages = ("onnx", "onnxscript", "openvino")

    def write(self, program: ExportedProgram, file: Path, calibration: Tensor | None) -> list[Path]:
        import openvino

        from suite.formats.quantised import quantise

        model = to_onnx(program)
        if calibration is not None:
            model = quantise(model, calibration)
        graph = read_graph(model.SerializeToString())
        openvino.save_model(graph, file, compress_to_fp16=False)  # what is half precision is so already
        return [file, file.with_suffix(".bin")]

    def open(self, file: Path, threads: int) -> Session:
        return open_openvino(str(file), threads)


def open_openvino(model: str | bytes, threads: int) -> Session:
    """A compiled model of OpenVINO on the CPU. model: a file's path, or the content of an ONNX file.

    It computes float32 in float32, which OpenVINO leaves for bfloat16 by itself where the processor has that.
    RequestError without the package.
    """
    require("openvino")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = core().compile_model(read_graph(model), "CPU", settings)
    request = compiled.create_infer_request()

    def run(images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = request.infer([images], share_inputs=True)[0]
        return logits

    return run


@cache
def core() -> Any:
    """The `openvino.Core` of this process.

    Its plug-in for CPUs gives the thread a stack for signals and takes it away with itself. Of two, the first one's is
    gone when the second puts it back, and the next signal ends the process.
    """
    import openvino

    return openvino.Core()


def read_graph(model: str | bytes) -> Any:
    """The `openvino.Model`, whose selections keep the order of equal values, as ONNX has it and OpenVINO only if told.

    Methods rank tokens, and of equally good ones the first has to win in every runtime. RequestError without the
    package.
    """
    require("openvino")
    graph = core().read_model(model)
    for operator in graph.get_ops():
        if operator.get_type_name() == "TopK":
            operator.set_attribute("stable", True)
    return graph
