"""How much of the saved arithmetic becomes saved time: (speed-up) / (FLOPs ratio), and the A/A spread beside it.

    python tests/perf/speedup_vs_flops.py --model deit_small_patch16_224 --batch 32 --cells "tome r=13" "evit keep=0.7"
    python tests/perf/speedup_vs_flops.py --batch 32 --flops=-35%      (every reducer, at the rate that comes closest)

Not run by the test suite: it takes minutes and wants a machine that does nothing else. 1.00 means that a forward
with 40 % fewer multiply-accumulates takes 40 % less time. Synthetic smooth images unless --images names a folder.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from suite import attach
from suite.measure.flops import count_flops, smooth_image
from suite.measure.flops_target import solve_rate
from suite.measure.speed import measure_speed
from suite.reducers import list_reducers


def load_images(folder: str | None, model: torch.nn.Module, batch: int) -> torch.Tensor:
    """(batch, 3, H, W) photographs in path order, preprocessed as timm does for the model; or soft blobs."""
    config = resolve_data_config(model=model)
    if folder is None:
        return torch.cat([smooth_image(config["input_size"][1:], seed) for seed in range(batch)])
    transform = create_transform(**config)
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:batch]
    return torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--cells", nargs="+", default=[])
    parser.add_argument("--flops", help="target for every reducer of --reducers")
    parser.add_argument("--reducers", default="*", help="wildcard")
    parser.add_argument("--images", help="folder of photographs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--runtime", default="eager")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block-seconds", type=float)
    args = parser.parse_args()

    model = timm.create_model(args.model).eval()
    images = load_images(args.images, model, args.batch)
    cells = args.cells or ([] if args.flops else ["tome r=13"])
    if args.flops:
        for name in fnmatch.filter(list_reducers()[1:], args.reducers):
            cells.append(f"{name} {solve_rate(model, name, flops=args.flops, images=images[:8]).rate}")
    cost = {"none": count_flops(model, images=images).total}
    for cell in cells:
        name, _, rate = cell.partition(" ")
        with attach(model, name, rate or None):
            cost[cell] = count_flops(model, images=images).total
    results = measure_speed(
        model.to(args.device),
        images,
        cells,
        precision=args.precision,
        runtime=args.runtime,
        rounds=args.rounds,
        min_block_s=args.block_seconds,
        progress=lambda done, blocks, name: print(f"{done}/{blocks} {name}", end="\033[K\r", file=sys.stderr),
    )
    none = results["none"]
    print(
        f"{none.device}, {args.model}, batch {args.batch}, {args.precision}, {none.threads} threads, {none.attention}"
    )
    print(f"A/A {none.aa_low:.3f} .. {none.aa_high:.3f}{'  NOISY' if none.noisy else ''}, load {none.load_average}")
    for cell, result in results.items():
        if result.im_s is None:
            print(f"{cell:20} {result.note}")
            continue
        ratio = cost["none"] / cost[cell]
        print(
            f"{cell:20} {cost[cell] / 1e9:7.3f} GMACs  {result.im_s:9.2f} im/s  x{result.speedup:.3f} "
            f"[{result.speedup_low:.3f}, {result.speedup_high:.3f}]  FLOPs x{ratio:.3f}  "
            f"efficiency {result.speedup / ratio:.3f}  {result.note or ''}"
        )


if __name__ == "__main__":
    main()
