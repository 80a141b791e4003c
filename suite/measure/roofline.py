"""How long a GPU takes for what a forward launches: of every kernel whatever binds it, launch, memory or arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from suite.measure.kernels import ATTENTION, BATCHED, BIASED, PRODUCT, Kernel, Trace


@dataclass(frozen=True)
class Roofline:
    """What a GPU reaches in half precision.

    launch_s: seconds that a kernel takes at least. host_s: seconds of the CPU to launch one. bandwidth: bytes/s of the
    memory; cache_bandwidth: of operators that move less than `cache_bytes`. rates: multiply-accumulates/s by the
    `Kernel.kind` of a product.
    """

    name: str
    launch_s: float
    host_s: float
    bandwidth: float
    cache_bandwidth: float
    cache_bytes: float
    rates: Mapping[str, float]

    def bounds(self, kernel: Kernel) -> dict[str, float]:
        """Seconds by what may bind: launches, bandwidth, arithmetic; the largest is what the kernel takes."""
        bandwidth = self.cache_bandwidth if kernel.moved < self.cache_bytes else self.bandwidth
        return {
            "launches": self.launch_s * kernel.launches,
            "bandwidth": kernel.moved / bandwidth,
            "arithmetic": kernel.macs / self.rates[kernel.kind] if kernel.kind else 0.0,
        }

    def seconds(self, trace: Trace) -> float:
        """Time of the GPU alone."""
        return sum(max(self.bounds(kernel).values()) for kernel in trace.kernels)

    def host_seconds(self, trace: Trace) -> float:
        """Time that the CPU needs to launch everything; where it is longer, the GPU waits."""
        return self.host_s * trace.launches


H100 = Roofline(
    "H100",
    launch_s=2.2e-6,
    host_s=5e-6,
    bandwidth=2.7e12,
    cache_bandwidth=5.5e12,
    cache_bytes=25e6,
    rates={PRODUCT: 225e12, BATCHED: 100e12, ATTENTION: 110e12, BIASED: 80e12},
)
