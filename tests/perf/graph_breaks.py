"""What torch.compile makes of every method: graphs, breaks between them and why, and compilations per shape.

    python -m tests.perf.graph_breaks                                 (a tiny model, every method)
    python -m tests.perf.graph_breaks --reducers tome,mctf --model deit_tiny_patch16_224

Wanted: one graph, no break, and one compilation a shape. Nothing is run but what traces; no kernels are built.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from suite import attach
from suite.contract.baseline import BASELINE
from suite.measure.flops import smooth_image
from suite.measure.runtimes import COMPILED, make_runtime
from suite.measure.runtimes.base import frozen_copy
from suite.measure.runtimes.compiled import graph_breaks
from suite.reducers import list_reducers, reducer_class


@dataclass(frozen=True)
class Compilation:
    """graphs: of the first forward. again: compilations by a second forward of its shape; other: by one of another.

    wrong: the largest difference to the eager logits.
    """

    graphs: int
    breaks: int
    reasons: tuple[str, ...]
    again: int
    other: int
    wrong: float


@torch.inference_mode()
def compile_counted(model: nn.Module, images: Tensor) -> Compilation:
    """Trace the model with what is attached to it on (B, 3, H, W), B > 2, and on one image less."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    seen: list[int] = []

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        seen.append(1)
        return module

    counters.clear()
    with make_runtime(COMPILED).hold(2):
        forward = torch.compile(frozen_copy(model), backend=backend, dynamic=False)
        wrong = float((forward(images) - model(images)).abs().max())
        breaks, graphs = graph_breaks(), len(seen)
        reasons = tuple(" ".join(str(reason).split())[:200] for reason in counters["graph_break"])
        forward(images)
        again = len(seen) - graphs
        forward(images[:-1])
    return Compilation(graphs, breaks, reasons, again, len(seen) - graphs - again, wrong)


def rate_of(name: str) -> str | None:
    """Some rate that a method takes."""
    usual = {"r": "r=6", "keep": "keep=0.7", "side": "side=16", "lines": "lines=2", "tau": "tau=0.5"}
    return usual[reducer_class(name).rates[0]] if reducer_class(name).rates else None


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=4, embed_dim=32, depth=4, num_heads=2, num_classes=10).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="timm name; default: a tiny ViT of 4 blocks and 65 tokens")
    parser.add_argument("--reducers", help="a,b; default: all")
    args = parser.parse_args()
    model = timm.create_model(args.model).eval() if args.model else tiny()
    images = torch.cat([smooth_image(32 if not args.model else 224, seed) for seed in range(3)])
    print(f"{'method':12} {'schedule':9} {'graphs':>6} {'breaks':>6} {'same shape':>10} {'another':>8} {'off by':>8}")
    for name in args.reducers.split(",") if args.reducers else list_reducers():
        with attach(model, name, None if name == BASELINE else rate_of(name)):
            found = compile_counted(model, images)
        fixed = "by image" if reducer_class(name).input_dependent else "fixed"
        print(
            f"{name:12} {fixed:9} {found.graphs:6} {found.breaks:6} {found.again:10} {found.other:8} {found.wrong:8.0e}"
        )
        for reason in found.reasons:
            print(f"    {reason}")


if __name__ == "__main__":
    main()
