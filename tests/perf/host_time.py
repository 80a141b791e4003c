"""What the CPU needs for one launch of an eager forward: of a model so small that it computes nothing worth the name.

    python -m tests.perf.host_time

A launch on a GPU takes some microseconds more. `predict` takes 15 (`suite.analyse.prediction.fit.EXPECTED`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from time import perf_counter

import timm
import torch

import suite
from suite.measure.trace import trace_forward

METHODS = (("none", ""), ("tome", "r=1"), ("dtem", "r=1"), ("evit", "keep=0.7"), ("mctf", "r=1"))


def seconds(work: Callable[[], object], times: int = 100) -> float:
    for _ in range(times // 10):
        work()
    taken = []
    for _ in range(times):
        start = perf_counter()
        work()
        taken.append(perf_counter() - start)
    return median(taken)


def main() -> None:
    torch.set_num_threads(1)
    model = timm.create_model("vit_tiny_patch16_224", embed_dim=8, num_heads=1, num_classes=2, img_size=64).eval()
    images = torch.rand(1, 3, 64, 64)
    for name, rate in METHODS:
        with suite.attach(model, name, rate) if rate else nullcontext(), torch.inference_mode():
            launches = trace_forward(model, 1, "fp32").launches
            print(
                f"{name} {rate}: {1e6 * seconds(lambda: model(images)) / launches:.1f} us a launch, {launches} launches"
            )


if __name__ == "__main__":
    main()
