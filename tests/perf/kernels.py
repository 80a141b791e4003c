"""What every method would ask of a GPU beside the unreduced model: launches, bytes, and the speed-up that they leave.

    python -m tests.perf.kernels                                   (DeiT-S, every method)
    python -m tests.perf.kernels --model deit_base_patch16_224 --reducers tome,mctf
    python -m tests.perf.kernels --reducers tome --each             (and every kernel of one reducing block)

Counted on shapes (`suite.measure.trace`) in bf16 at batch 256, second forward; efficiency is predicted by
`suite.measure.roofline.H100`, from the GPU's time alone.
"""

from __future__ import annotations

import argparse

import timm

from suite import attach
from suite.measure.kernels import Trace
from suite.measure.roofline import H100, Roofline
from suite.measure.trace import trace_forward
from suite.reducers import list_reducers, reducer_class

RATES = {"mctf": ("r=16", "r=0.35@3,6,9")}
LAYER_NORMS = 2  # of a block


def efficiency(reduced: Trace, unreduced: Trace, gpu: Roofline) -> float:
    """Predicted speed-up over the ratio of multiply-accumulates: 1 where a reducer costs no time of its own."""
    return gpu.seconds(unreduced) / gpu.seconds(reduced) * reduced.macs / unreduced.macs


def usual_rates(name: str) -> tuple[str, ...]:
    """r=13 in every block, or keep=0.7 where the method acts in stages; both where it knows both."""
    known = reducer_class(name).rates
    return RATES.get(name) or tuple(rate for rate in ("r=13", "keep=0.7") if rate.partition("=")[0] in known)


def block_kernels(trace: Trace, block: int) -> str:
    """The kernels of a block, one a line."""
    starts = [i for i, kernel in enumerate(trace.kernels) if kernel.name == "native_layer_norm"][::LAYER_NORMS]
    rows = trace.kernels[starts[block] : starts[block + 1]]
    return "\n".join(f"    {k.launches} x {k.name:32s} {k.moved / 1e6:9.2f} MB  {k.kind}" for k in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--reducers", default=",".join(name for name in list_reducers() if name != "none"))
    parser.add_argument("--each", action="store_true")
    asked = parser.parse_args()
    model = timm.create_model(asked.model).eval()
    plain = trace_forward(model)
    print(f"{asked.model}: {plain.launches} launches, {plain.moved / 1e9:.1f} GB, {plain.peak / 2**20:.0f} MiB")
    print(f"{'method':12s} {'rate':14s} launches  a block     GB  bytes x  FLOPs x  speed-up  efficiency")
    for name in asked.reducers.split(","):
        if reducer_class(name).input_dependent:
            print(f"{name:12s} n/a: what it launches depends on the images")
            continue
        for rate in usual_rates(name):
            with attach(model, name, rate) as handle:
                trace = trace_forward(model)
                amounts = handle.schedule(handle.layout.tokens).amounts
            extra = (trace.launches - plain.launches) / sum(amount > 0 for amount in amounts)
            flops, speedup = trace.macs / plain.macs, H100.seconds(plain) / H100.seconds(trace)
            moved, share = trace.moved / plain.moved / flops, efficiency(trace, plain, H100)
            print(
                f"{name:12s} {rate:14s} {trace.launches:8d} {extra:8.2f} {trace.moved / 1e9:6.1f} {moved:8.3f} "
                f"{flops:8.3f} {speedup:9.2f} {share:11.3f}",
                flush=True,
            )
            if asked.each:
                print(block_kernels(trace, next(i for i, amount in enumerate(amounts[:-1]) if amount) + 3))


if __name__ == "__main__":
    main()
