"""GPUs as their makers describe them: one entry a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from suite.errors import RequestError, unknown

TERA, GIGA, MEGA = 1e12, 1e9, 1e6


@dataclass(frozen=True)
class Gpu:
    """A data sheet.

    memory: GB. bandwidth: TB/s of it. cache: MB of L2. fp32: TFLOP/s of its ordinary cores. tensor: TFLOP/s of its
    tensor cores by type, dense, accumulating in float32; a type that it has not is not in there. halved: its tensor
    cores accumulate in float32 at half of what they could otherwise do, as on GeForce cards. source: where the figures
    are printed.
    """

    title: str
    memory: float
    bandwidth: float
    cache: float
    fp32: float
    tensor: Mapping[str, float]
    source: str
    halved: bool = False

    def units(self, precision: str, tf32: bool = False) -> str:
        """The type in which tensor cores do matrix products, or '' where ordinary cores do them.

        tf32: the user lets products of float32 run in it. RequestError for a precision that the GPU has not.
        """
        if precision == "fp32":
            return "tf32" if tf32 and "tf32" in self.tensor else ""
        if precision not in self.tensor:
            others = " or ".join(["fp32", *(name for name in self.tensor if name != "tf32")])
            raise RequestError(f"{self.title} has no {precision}; give --precision {others}")
        return precision

    def product_rate(self, units: str, tensor: float, fp32: float) -> float:
        """Multiply-accumulates/s of large matrix products, where shares `tensor` and `fp32` are reached of what tensor
        cores and ordinary cores could do. A share is what feeding the cores leaves: it is of the rate before halving.
        """
        if not units:
            return fp32 * self.fp32 * TERA / 2
        return min(1, tensor * (1 + self.halved)) * self.tensor[units] * TERA / 2


def _tensor(half: float, tf32: float) -> dict[str, float]:
    return {"bf16": half, "fp16": half, "tf32": tf32}


GPUS = {
    "h100": Gpu("H100 SXM", 80, 3.35, 50, 66.9, _tensor(989.4, 494.7), "NVIDIA H100 data sheet; Hopper whitepaper"),
    "h200": Gpu("H200 SXM", 141, 4.8, 50, 66.9, _tensor(989.4, 494.7), "NVIDIA H200 data sheet"),
    "a100": Gpu("A100 SXM 80GB", 80, 2.039, 40, 19.5, _tensor(312, 156), "NVIDIA A100 data sheet; Ampere whitepaper"),
    "v100": Gpu("V100 SXM2", 32, 0.9, 6, 15.7, {"fp16": 125}, "NVIDIA V100 data sheet; Volta whitepaper"),
    "l40s": Gpu("L40S", 48, 0.864, 96, 91.6, _tensor(362.05, 183.2), "NVIDIA L40S data sheet (half of what is sparse)"),
    "rtx4090": Gpu("RTX 4090", 24, 1.008, 72, 82.6, _tensor(165.2, 82.6), "NVIDIA Ada whitepaper, appendix A", True),
    "rtx3090": Gpu("RTX 3090", 24, 0.936, 6, 35.6, _tensor(71.2, 35.6), "NVIDIA GA102 whitepaper, appendix A", True),
    "rtx3080": Gpu("RTX 3080", 10, 0.760, 5, 29.8, _tensor(59.5, 29.8), "NVIDIA GA102 whitepaper, table 2", True),
    "jetson-orin": Gpu(
        "Jetson AGX Orin 64GB", 64, 0.2048, 4, 5.3, _tensor(42.5, 21.2), "NVIDIA Jetson AGX Orin technical brief"
    ),
}  # fmt: skip


def find_gpu(name: str) -> Gpu:
    """RequestError, with the nearest names, for one that is not known."""
    if name not in GPUS:
        raise unknown("GPU", name, GPUS)
    return GPUS[name]
