"""What the last forward of a model comes to by formula, whatever family it is of."""

from __future__ import annotations

from typing import Any

from torch import nn

from suite.attachment.handle import handle_of
from suite.backbones.base import BackboneFamily
from suite.backbones.block import BlockTrace
from suite.backbones.diffusers_blocks import DiffusersFamily
from suite.measure.denoiser_formula import denoiser_macs
from suite.measure.formula import BaseCost, base_macs


def closed_form(model: nn.Module, family: BackboneFamily[Any], size: tuple[int, int]) -> BaseCost | None:
    """From the token counts of the last forward, of images of `size` (H, W), without what a reducer itself computes.

    None for a denoiser that does not say how long a prompt is.
    """
    if isinstance(family, DiffusersFamily):
        return _of_denoiser(model, family, size)
    if (handle := handle_of(model)) is not None:
        return base_macs(handle.images.layout(size), handle.trace, handle.restoring == "per_block")
    layout = family.layout(model, size)
    return base_macs(layout, [BlockTrace.plain(layout.tokens)] * layout.depth)


def _of_denoiser(model: Any, family: DiffusersFamily, size: tuple[int, int]) -> BaseCost | None:
    """The total alone, of one row of a call without conditions."""
    if (bare := getattr(model, "bare_call", None)) is None:
        return None
    handle: Any = handle_of(model)
    counts = [{} for _ in family.branched_blocks(model)] if handle is None else handle.branch_counts
    size = size if handle is None else handle.images.size(size)
    keys_values = handle is not None and handle.reducer.keys_values
    return BaseCost(denoiser_macs(family, model, size, bare.length, counts, keys_values), {}, [])
