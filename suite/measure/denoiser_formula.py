"""Closed form of what a call of diffusers' denoisers costs: every weight times the places that it is used in.

To that come the products of attention, 2·Q·K·C for Q queries, K keys and C channels in all heads. Where a branch runs
on fewer tokens, its weights are used in fewer places. What a reducer itself computes comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from suite.backbones.branched import BranchedBlock, Grid
from suite.backbones.diffusers_blocks import DiffusersFamily


def denoiser_macs(
    family: DiffusersFamily, model: Any, size: Grid, text: int, counts: Sequence[Mapping[str, int]], keys_values: bool
) -> int:
    """Multiply-accumulates of one row of a call for a latent of `size` (H, W).

    text: tokens of the prompt. counts: of every block, the tokens of those branches that ran on fewer. keys_values: of
    self-attention, only the keys and values were fewer.
    """
    places: dict[str, int] = {}
    products = 0
    blocks = family.branched_blocks(model)
    for of, (rows, columns), fewer in zip(blocks, family.grids(model, size), counts, strict=True):
        used, macs = _block(of, rows * columns, text, fewer, keys_values)
        places |= used
        products += macs
    return products + family.repeated_macs(model) + sum(
        module.weight.numel() * (places[name] if name in places else family.places(model, name, size, text))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    )  # fmt: skip


def _block(
    of: BranchedBlock, tokens: int, text: int, fewer: Mapping[str, int], keys_values: bool
) -> tuple[dict[str, int], int]:
    """Places of the weights in its branches, by their names in the model, and its attention's products."""
    places: dict[str, int] = {}
    products = 0
    for branch, module in of.branches.items():
        attention: Any = module
        count = fewer.get(branch, tokens)
        queries = tokens if branch == "self" and keys_values else count
        keys = text if branch == "cross" else count
        if branch != "mlp":
            products += 2 * queries * keys * attention.to_q.out_features
        prefix = next(name for name, part in of.block.named_modules() if part is module)
        for name, part in module.named_modules():
            if isinstance(part, nn.Linear):
                places[f"{of.name}.{prefix}.{name}"] = keys if name in ("to_k", "to_v") else queries
    return places, products
