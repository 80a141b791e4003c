"""Closed form of a ViT's cost from the token counts of its blocks: what the counters are checked against.

A plain block whose attention runs on N tokens of width C and whose MLP runs on N' costs, in multiply-accumulates,
    N·(qkv + proj) + 2·N²·C_attention + N'·mlp
with qkv = 3C², proj = C², mlp = 2ρC² for MLP ratio ρ. Where a method acts inside attention, queries and keys, values,
rows of the map and rows of the projection are counted apart; a layer that is more than a matrix is run for each.
Normalisations, softmax, activations, sorting and moving tokens are free by convention; what a reducer itself computes
comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from suite.backbones.block import BlockTrace
    from suite.tokens.layout import Layout


@dataclass(frozen=True)
class BaseCost:
    """MACs per image without any reducer overhead; `by_part` has patch_embed, attention, mlp and head."""

    total: int
    by_part: dict[str, int]
    by_block: list[int]


def base_macs(layout: Layout, blocks: Sequence[BlockTrace], restored: bool = False) -> BaseCost:
    """Cost of a backbone whose blocks ran on the token counts of `blocks`.

    restored: all tokens are given back after every block, so that a head which pools by attention reads all of them.
    Raises ValueError where there is not one entry a block.
    """
    if len(blocks) != layout.depth:
        raise ValueError(f"blocks has {len(blocks)} entries for {layout.depth} blocks; give one a block")
    attention = [attention_macs(layout, block) for block in blocks]
    mlp = [block.mlp * layout.mlp_macs for block in blocks]
    by_part = {
        "patch_embed": layout.patch_macs,
        "attention": sum(attention),
        "mlp": sum(mlp),
        "head": layout.head_macs + layout.head_token_macs * (layout.tokens if restored else blocks[-1].leaving),
    }
    by_block = [a + m for a, m in zip(attention, mlp)]
    return BaseCost(sum(by_part.values()), by_part, by_block)


def attention_macs(layout: Layout, block: BlockTrace) -> int:
    projections = block.attended * layout.qkv_macs
    if block.values != block.attended:
        third = layout.qkv_macs // 3
        queries_keys, values = layout.apart_macs or (layout.qkv_macs - third, third)
        projections = block.attended * queries_keys + block.values * values
    if block.queries > block.attended:  # there are queries beside those of what is attended to
        projections += (block.queries - block.attended) * (layout.qkv_macs // 3)
    products = 2 * block.queries * block.attended * layout.heads * layout.head_dim
    return projections + products + block.projected * layout.proj_macs
