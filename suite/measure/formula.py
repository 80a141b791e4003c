"""Closed form of a ViT's cost from the token counts of its blocks: what the counters are checked against.

A block whose attention runs on N tokens of width C and whose MLP runs on N' costs, in multiply-accumulates,
    N·(qkv + proj) + 2·N²·C_attention + N'·mlp
with qkv = 3C², proj = C², mlp = 2ρC² for a plain block of MLP ratio ρ. Normalisations, softmax, activations,
sorting and moving tokens are free by convention; what a reducer itself computes comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from suite.backbones.block import Layout


@dataclass(frozen=True)
class BaseCost:
    """MACs per image without any reducer overhead; `by_part` has patch_embed, attention, mlp and head."""

    total: int
    by_part: dict[str, int]
    by_block: list[int]


def base_macs(layout: Layout, attended: Sequence[int], mlp_tokens: Sequence[int]) -> BaseCost:
    """Cost of a backbone whose block l attends on attended[l] tokens and runs its MLP on mlp_tokens[l].

    Token counts include prefix tokens. Raises ValueError where a list does not have one entry a block.
    """
    for name, counts in (("attended", attended), ("mlp_tokens", mlp_tokens)):
        if len(counts) != layout.depth:
            raise ValueError(f"{name} has {len(counts)} entries for {layout.depth} blocks; give one a block")
    products = 2 * layout.heads * layout.head_dim
    attention = [n * (layout.qkv_macs + layout.proj_macs) + n * n * products for n in attended]
    mlp = [n * layout.mlp_macs for n in mlp_tokens]
    by_part = {
        "patch_embed": layout.patch_macs,
        "attention": sum(attention),
        "mlp": sum(mlp),
        "head": layout.head_macs + layout.head_token_macs * mlp_tokens[-1],
    }
    by_block = [a + m for a, m in zip(attention, mlp)]
    return BaseCost(sum(by_part.values()), by_part, by_block)
