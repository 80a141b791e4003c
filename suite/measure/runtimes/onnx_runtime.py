"""ONNX Runtime, on a model that is exported when it is prepared."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from suite.formats.onnx_file import Onnx, open_onnx, to_onnx
from suite.formats.program import export_in_place
from suite.measure.runtimes.base import Prepared, Runtime, register, through_numpy

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@register("onnxruntime")
class OnnxRuntime(Runtime):
    """On the CPU by as many threads as PyTorch has; on CUDA where that build of it is installed."""

    compiler = "ONNX Runtime"
    packages = Onnx.packages

    def runs_on(self, device: torch.device) -> bool:
        if self.lacking:
            return False
        import onnxruntime

        return PROVIDERS.get(device.type) in onnxruntime.get_available_providers()

    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        start = time.perf_counter()
        content = to_onnx(export_in_place(model, example)).SerializeToString()
        session = open_onnx(content, torch.get_num_threads(), [PROVIDERS[example.device.type]])
        return Prepared(through_numpy(session, example), time.perf_counter() - start)
