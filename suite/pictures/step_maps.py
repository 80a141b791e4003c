"""Which group every patch of a picture is in while it is drawn, at some steps and in some blocks of a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from suite.attachment.branch_handle import BranchHandle
from suite.attachment.handle import Handle
from suite.backbones import backbone_of, family_of
from suite.backbones.branched import BranchScope, DenoiserFamily, Grid, downsampling
from suite.errors import RequestError
from suite.pictures.token_maps import among_patches
from suite.reducers.branch_signals import BranchSignals

SHOWN = 4  # steps, and blocks, where nobody names them

One = TypeVar("One")


@dataclass(frozen=True)
class StepMaps:
    """What became of the patches of B pictures before the first branch in scope of some blocks, at some steps.

    steps: numbers, from 1, of those of `of` that the sampler makes; steps of the same time are one. blocks: from 1.
    owners: (S, L, B, P) int32, a number for the token that stands for each patch, -1: it was dropped. tokens: (S, L)
    int64 that a branch ran on, prefix included; `full`: that entered the block with most of them. grid: rows and
    columns of the finest of the blocks' patches, P of them, row by row; a patch of a coarser block stands for several.
    """

    steps: list[int]
    of: int
    blocks: list[int]
    owners: np.ndarray
    tokens: np.ndarray
    full: int
    grid: Grid

    @property
    def frames(self) -> list[tuple[int, int]]:
        """(step, block) of every map, step by step."""
        return [(step, block) for step in self.steps for block in self.blocks]


def blocks_in_scope(model: nn.Module) -> list[int]:
    """Numbers, from 1, of the blocks of a denoiser whose branches a rate may act in, for inputs of its own size."""
    backbone = backbone_of(model)
    family = cast(DenoiserFamily[Any], family_of(model))
    scope, size = getattr(backbone, "branch_scope", BranchScope()), family.image_size(backbone)
    full = family.input_grid(backbone, size)
    grids = enumerate(family.grids(backbone, size), 1)
    return [block for block, grid in grids if downsampling(full, grid) <= scope.max_downsample]


@torch.no_grad()
def step_maps(
    handle: Handle, draw: Callable[[], object], count: int, *, wanted_first: bool, blocks: Sequence[int]
) -> StepMaps:
    """Groups of `count` pictures while `draw` makes them, in one batch, by a denoiser with an attached `handle`.

    wanted_first: which half of a batch with guidance has the prompt or class, whose groups are taken. blocks: from 1;
    where the handle's rate does nothing in one, every patch is by itself. RequestError where nothing is reduced at all.
    """
    handle = cast(BranchHandle, handle)
    seen: dict[int, dict[int, tuple[np.ndarray, int, Grid]]] = {}

    def remember(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        signals: BranchSignals = arguments[2]
        at = seen.setdefault(int(signals.key[0]), {})
        if signals.block + 1 in blocks and signals.block not in at:  # the first branch: groups are the same in all
            owner: Tensor = result.owner[:count] if wanted_first else result.owner[-count:]
            at[signals.block] = among_patches(owner, signals.num_prefix), result.count, signals.grid

    watching = handle.reducer.register_forward_hook(remember)
    try:
        draw()
    finally:
        watching.remove()
    if not seen:
        remedy = "; its pictures are drawn smaller" if handle.shrinks else "; give it a rate"
        raise RequestError(f"reducer {handle.reducer.name!r} takes no tokens out of any branch{remedy}")
    plans, prefix = handle.plans(handle.family.image_size(handle.model)), handle.family.num_prefix
    alone = {block: plans[block - 1].grid for block in blocks}
    for at in seen.values():
        for block, grid in alone.items():
            patches = np.arange(grid[0] * grid[1])
            at.setdefault(block - 1, (np.tile(patches, (count, 1)), len(patches) + prefix, grid))
    steps = spaced(range(len(seen)), SHOWN)
    chosen = [list(seen.values())[step] for step in steps]
    finest = max((grid for at in chosen for _, _, grid in at.values()), key=lambda grid: grid[0] * grid[1])
    return StepMaps(
        steps=[step + 1 for step in steps],
        of=len(seen),
        blocks=list(blocks),
        owners=np.stack([[enlarged(*at[b - 1][::2], finest) for b in blocks] for at in chosen]).astype(np.int32),
        tokens=np.array([[at[block - 1][1] for block in blocks] for at in chosen]),
        full=finest[0] * finest[1] + prefix,
        grid=finest,
    )


def enlarged(owners: np.ndarray, grid: Grid, finest: Grid) -> np.ndarray:
    """(B, P) owners of patches on `grid` -> (B, P') of those of a finer one, each that of the patch that it lies in."""
    down, across = (np.arange(fine) * coarse // fine for coarse, fine in zip(grid, finest, strict=True))
    return owners.reshape(-1, *grid)[:, down][:, :, across].reshape(len(owners), -1)


def spaced(items: Sequence[One], count: int) -> list[One]:
    """At most `count` of them, the first and the last among them, evenly spaced."""
    if len(items) <= count:
        return list(items)
    return [items[i * (len(items) - 1) // (count - 1)] for i in range(count)] if count > 1 else [items[0]]
