"""What DTEM's soft grouping costs of a training step, and what it is spent on.

    python -m tests.perf.soft_grouping --batch 64 --r 16

Not run by the test suite: it wants a machine that does nothing else. Parts are timed by themselves on the shapes that
the blocks see, forward and backward, in turns (A B C A B C ...); a figure is the median over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from suite import attach
from suite.measure.heap import keep_freed_memory
from suite.models.load import load_model
from suite.tokens.soft_matching import soft_grouping, soft_merge, split
from tests.unit.test_soft_matching import literal_grouping


def whole_step(model, images: Tensor, rate: str | None) -> Callable[[], None]:
    """Forward and backward of modular training; without a rate, of the same model with its first embedding alone."""

    def run() -> None:
        with attach(model, "dtem", rate or "r=[1]") as handle:
            model.eval()
            handle.reducer.train().requires_grad_(True)
            with torch.autocast(images.device.type, torch.bfloat16):
                logits = model(images)
            logits.float().logsumexp(1).sum().backward()

    return run


def per_block(batch: int, width: int, tokens: int, r: int, depth: int, part: Callable[..., Tensor]) -> Callable:
    """`part(metric, x, size, active, r)` on the shapes of every block, forward and backward."""
    blocks, active = [], tokens
    for _ in range(depth):
        now = min(r, (active - 1) // 2)
        metric = torch.randn(batch, tokens, 32, requires_grad=True)
        blocks.append((metric, torch.randn(batch, tokens, width, requires_grad=True), active, now))
        active -= now

    def run() -> None:
        for metric, x, active, now in blocks:
            part(metric, x, torch.ones(batch, tokens), active, now).sum().backward()

    return run


def grouping(metric, x, size, active, r):
    return soft_grouping(*split(metric, active, 1), r).square()


def literal(metric, x, size, active, r):
    a, b = split(metric, active, 1)
    return torch.stack([literal_grouping(a[i], b[i], r, 0.1, 0.1, 3)[0] for i in range(len(a))]).square()


def choice(metric, x, size, active, r):
    """The r softmaxes alone."""
    row = metric[:, 1:active:2, 0]
    chosen = torch.zeros_like(row)
    for _ in range(r):
        now = row.softmax(-1)
        chosen, row = chosen + now, row + (1 - now).clamp(min=1e-7).log() / 0.1
    return chosen.square()


def similarity(metric, x, size, active, r):
    a, b = (F.normalize(part, dim=-1) for part in split(metric, active, 1))
    return (a @ b.transpose(1, 2)).square()


def merge(metric, x, size, active, r):
    a, b = split(metric, active, 1)
    shares = torch.full((len(a), a.shape[1], b.shape[1]), 0.5 / b.shape[1], requires_grad=True)
    return soft_merge(x, size, shares, active, 1)[0].square()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--literal", action="store_true", help="time the literal recursion, too: slow")
    args = parser.parse_args()
    keep_freed_memory()
    model, _ = load_model("scenes_vit", "embedded")
    model.requires_grad_(False)
    for block in model.blocks:
        block.attn.fused_attn = False
    images = torch.randn(args.batch, 3, 112, 112)
    shape = (args.batch, model.embed_dim, 197, args.r, len(model.blocks))
    parts = {
        "whole step": whole_step(model, images, f"r={args.r}"),
        "the same, one token merged in the first block alone": whole_step(model, images, None),
        "soft grouping": per_block(*shape, grouping),
        "  of it, similarities": per_block(*shape, similarity),
        f"  of it, {args.r} softmaxes": per_block(*shape, choice),
        "soft merging": per_block(*shape, merge),
    }
    if args.literal:
        parts["soft grouping, literal"] = per_block(*shape, literal)
    times: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(args.rounds + 1):
        for name, run in parts.items():
            began = time.perf_counter()
            run()
            if turn:  # the first warms up
                times[name].append(time.perf_counter() - began)
    whole = statistics.median(times["whole step"])
    for name, spent in times.items():
        middle = statistics.median(spent)
        print(f"{name:52s} {middle:7.3f} s  [{min(spent):.3f}, {max(spent):.3f}]  {middle / whole:6.1%}")


if __name__ == "__main__":
    main()
