"""A program of torch.export, as PyTorch runs it and as it compiles it ahead of time."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor, nn

from suite.formats.program import export_in_place, quietly
from suite.measure.runtimes.base import Prepared, Runtime, register


@register("torch-export")
class TorchExport(Runtime):
    """The exported graph, operator by operator."""

    compiler = "torch.export"

    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        start = time.perf_counter()
        module = export_in_place(model, example).module()
        return Prepared(module, time.perf_counter() - start)


@register("aotinductor")
class AotInductor(Runtime):
    """The exported graph, compiled ahead of time to a library. Needs a C++ compiler."""

    compiler = "AOTInductor"

    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        start = time.perf_counter()
        program = export_in_place(model, example)
        package = str(Path(mkdtemp(prefix="aotinductor")) / "model.pt2")  # the library in it is used to the end
        with quietly(), torch.no_grad():
            torch._inductor.aoti_compile_and_package(program, package_path=package)
            forward = torch._inductor.aoti_load_package(package)
        return Prepared(forward, time.perf_counter() - start)

    def peak_memory(self, prepared: Prepared, images: Tensor, model: nn.Module) -> int | None:
        """Of what was compiled nobody sees the buffers, but on CUDA, where the allocator counts."""
        return None if images.device.type == "cpu" else super().peak_memory(prepared, images, model)
