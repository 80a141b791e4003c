"""TensorRT through its Python API, on a model that is exported when it is prepared."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from suite.formats.onnx_file import to_onnx
from suite.formats.program import INPUT, OUTPUT, export_in_place
from suite.measure.runtimes.base import Prepared, Runtime, register


@register("tensorrt")
class TensorRt(Runtime):
    """An engine of TensorRT, built in the precision of the example, which reads and writes PyTorch's memory."""

    compiler = "TensorRT"
    packages = ("onnx", "onnxscript", "tensorrt")

    def runs_on(self, device: torch.device) -> bool:
        return not self.lacking and device.type == "cuda"

    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        start = time.perf_counter()
        with torch.inference_mode():
            shape = model(example[:1]).shape
        content = to_onnx(export_in_place(model, example)).SerializeToString()
        engine = build_engine(content)
        output = torch.empty((len(example), *shape[1:]), dtype=example.dtype, device=example.device)
        return Prepared(call_engine(engine, output), time.perf_counter() - start)

    def peak_memory(self, prepared: Prepared, images: Tensor, model: nn.Module) -> int | None:
        """Engines have memory of their own, that PyTorch's allocator does not count."""
        return None


def build_engine(content: bytes) -> Any:
    """An engine of an ONNX model. ValueError, one line, for one that TensorRT cannot read or build."""
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(content):
        raise ValueError(str(parser.get_error(0)) if parser.num_errors else "the ONNX model cannot be read")
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise ValueError("no engine could be built")
    return tensorrt.Runtime(logger).deserialize_cuda_engine(plan)


def call_engine(engine: Any, output: Tensor) -> Any:
    """What runs the engine on batches in device memory; what it returns is overwritten by the next call."""
    context = engine.create_execution_context()

    def forward(images: Tensor) -> Tensor:
        context.set_tensor_address(INPUT, images.contiguous().data_ptr())
        context.set_tensor_address(OUTPUT, output.data_ptr())
        stream = torch.cuda.current_stream(images.device).cuda_stream if images.is_cuda else 0
        if not context.execute_async_v3(stream):
            raise RuntimeError("TensorRT could not run its engine")
        return output

    return forward
