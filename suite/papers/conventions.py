"""What the papers call a FLOP, of a model whose token counts are known."""

from __future__ import annotations

from collections.abc import Sequence

from suite.backbones.block import BlockTrace
from suite.papers.table import MACS, TWO_PER_MAC, WITH_ELEMENTWISE
from suite.tokens.layout import Layout

NORM, SOFTMAX = 4, 5  # operations an element; what is added, scaled or activated is one


def in_convention(convention: str, macs: int, layout: Layout, trace: Sequence[BlockTrace]) -> int:
    """`macs` multiply-accumulates per image, and what the convention counts beside or instead of them."""
    if convention == TWO_PER_MAC:
        return 2 * macs
    if convention == WITH_ELEMENTWISE:
        return macs + elementwise(layout, trace)
    if convention == MACS:
        return macs
    raise ValueError(f"convention {convention!r} is none of {MACS!r}, {WITH_ELEMENTWISE!r}, {TWO_PER_MAC!r}")


def elementwise(layout: Layout, trace: Sequence[BlockTrace]) -> int:
    """Element-wise operations per image, as DTEM's counter weighs them: 4 for a normalised element, 5 for one of a
    softmax, 1 for one that is scaled, added or activated.

    A reconstruction: which additions and products its authors' code runs at run time is not known to the last one. It
    gives 4.63 for DeiT-S, where 4.64 is printed and 4.60 are multiply-accumulates.
    """
    operations = layout.width * layout.tokens  # the position embedding
    for block in trace:
        hidden = layout.mlp_macs // (2 * layout.width)
        operations += layout.width * (NORM * (block.attended + block.mlp) + block.projected + block.mlp)
        operations += layout.heads * block.queries * block.attended * (SOFTMAX + 1)
        operations += hidden * block.mlp
    return operations + NORM * layout.width * trace[-1].leaving
