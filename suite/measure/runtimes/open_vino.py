"""OpenVINO, on a model that is exported when it is prepared."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from suite.formats.onnx_file import to_onnx
from suite.formats.openvino_ir import OpenVino, open_openvino
from suite.formats.program import export_in_place
from suite.measure.runtimes.base import Prepared, Runtime, register, through_numpy


@register("openvino")
class OpenVinoRuntime(Runtime):
    """On the CPU, by as many threads as PyTorch has; float32 is computed in float32."""

    compiler = "OpenVINO"
    packages = OpenVino.packages

    def runs_on(self, device: torch.device) -> bool:
        return not self.lacking and device.type == "cpu"

    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        start = time.perf_counter()
        content = to_onnx(export_in_place(model, example)).SerializeToString()
        session = open_openvino(content, torch.get_num_threads())
        return Prepared(through_numpy(session, example), time.perf_counter() - start)
