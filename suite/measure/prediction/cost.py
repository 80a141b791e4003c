"""What a forward takes on a GPU: a roofline from its data sheet and from how much of that programs reach.

`suite.measure.roofline.H100` has fixed parameters, by which methods are held to their bounds; here they follow the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from suite.measure.kernels import PRODUCT, Trace
from suite.measure.prediction.gpus import MEGA, TERA, Gpu
from suite.measure.roofline import H100, Roofline

RELATIVE = {kind: rate / H100.rates[PRODUCT] for kind, rate in H100.rates.items()}
"""Rates of products of many small matrices and of attention, to that of large ones: as on the H100 of the roofline."""
BOUNDS, HOST = ("launches", "bandwidth", "arithmetic"), "host"
"""What may bind a kernel (see `Roofline.bounds`), and a forward as a whole where the GPU waits for the CPU."""
CACHE_SPEED = H100.cache_bandwidth / H100.bandwidth
CACHE_SHARE = 0.5  # of the L2 is an operator's own, as on that H100


@dataclass(frozen=True)
class Reach:
    """What is taken to be the same on every GPU.

    launch_us: microseconds that a kernel takes at least. host_us: of the CPU to launch one. bandwidth, tensor, fp32:
    shares that are reached of the memory's bandwidth, of the tensor cores' rate and of the ordinary cores'.
    """

    launch_us: float
    host_us: float
    bandwidth: float
    tensor: float
    fp32: float

    def roofline(self, gpu: Gpu, precision: str, tf32: bool = False) -> Roofline:
        """RequestError for a precision that the GPU has not."""
        rate = gpu.product_rate(gpu.units(precision, tf32), self.tensor, self.fp32)
        bandwidth = gpu.bandwidth * TERA * self.bandwidth
        return Roofline(
            gpu.title,
            launch_s=self.launch_us * 1e-6,
            host_s=self.host_us * 1e-6,
            bandwidth=bandwidth,
            cache_bandwidth=bandwidth * CACHE_SPEED,
            cache_bytes=gpu.cache * MEGA * CACHE_SHARE,
            rates={kind: rate * relative for kind, relative in RELATIVE.items()},
        )


@dataclass(frozen=True)
class Forward:
    """Seconds of the GPU alone, and of the CPU to launch everything. shares: of the GPU's time, by what binds."""

    gpu_s: float
    host_s: float
    shares: dict[str, float]

    @property
    def seconds(self) -> float:
        return max(self.gpu_s, self.host_s)

    @property
    def binds(self) -> str:
        """HOST, or the bound with the largest share."""
        return HOST if self.host_s > self.gpu_s else max(self.shares, key=self.shares.__getitem__)


def predict_forward(trace: Trace, gpu: Roofline) -> Forward:
    spent = dict.fromkeys(BOUNDS, 0.0)
    for kernel in trace.kernels:
        bounds = gpu.bounds(kernel)
        most = max(bounds, key=bounds.__getitem__)
        spent[most] += bounds[most]
    whole = sum(spent.values())
    return Forward(whole, gpu.host_seconds(trace), {bound: seconds / whole for bound, seconds in spent.items()})
