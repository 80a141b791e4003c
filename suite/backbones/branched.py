"""What a family of denoisers says of its models: where the branches of their blocks are, and on which grids."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from suite.backbones.base import BackboneFamily
from suite.backbones.mixin import Reduced
from suite.errors import RequestError
from suite.reducers.signals import BlockParts

Model = TypeVar("Model", bound=nn.Module)
Grid = tuple[int, int]

BRANCHES = ("self", "cross", "mlp")


@dataclass(frozen=True)
class BranchScope:
    """Which branches run on fewer tokens, in which blocks: those whose tokens are at most `max_downsample` times
    farther apart than the denoiser's input has its own. Kept by a model as `branch_scope`; default as published.
    """

    branches: tuple[str, ...] = ("self",)
    max_downsample: int = 1

    def __post_init__(self) -> None:
        """RequestError for what is no scope."""
        for name in self.branches:
            if name not in BRANCHES:
                raise RequestError(f"branch {name!r} is unknown; use {', '.join(BRANCHES)}")
        if not self.branches or self.max_downsample < 1:
            raise RequestError(f"max_downsample={self.max_downsample}, branches={self.branches}: nothing is reduced")


@dataclass(frozen=True)
class BranchedBlock:
    """A pre-norm transformer block. name: of the module within the model. branches: modules that are called with normed
    tokens (B, N, C) first, by what they are; their outputs are of the same tokens. level: halvings of the grid before.
    """

    name: str
    block: nn.Module
    branches: Mapping[str, nn.Module]
    level: int = 0


class ReducedDenoiser(Reduced):
    """Mixed into a denoiser's class while a reducer is attached; its forward is its own, and hooks act in it."""

    def drawn_size(self, own: Grid) -> Grid:
        """(H, W) of the noise that is drawn from where noise of size `own` was given."""
        found: Grid = self._reducerbench.images.size(own)
        return found


class DenoiserFamily(BackboneFamily[Model], Generic[Model]):
    """Denoisers whose blocks keep all tokens: a reducer acts on what enters a branch, and is undone behind it."""

    mixin = ReducedDenoiser

    @abstractmethod
    def branched_blocks(self, model: Model) -> list[BranchedBlock]:
        """All blocks, in the order in which they run."""

    @abstractmethod
    def input_grid(self, model: Model, size: Grid) -> Grid:
        """What a block's distance of tokens is measured against, for inputs of `size` (H, W)."""

    @abstractmethod
    def time_key(self, times: Tensor) -> Tensor:
        """Time steps (B,) -> int64 of the same shape that draws are seeded by."""

    num_prefix: int = 0

    def grids(self, model: Model, size: Grid) -> list[Grid]:
        """The grid of every block's tokens, for inputs of `size` (H, W)."""
        first = self.grid(model, size)
        return [halved(first, of.level) for of in self.branched_blocks(model)]

    def entering(self, model: Model, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The noisy input and the time steps of a call of the model, wherever among its arguments they are."""
        given = inspect.signature(model.forward).bind(*args, **named).arguments
        x = next(given[name] for name in ("sample", "hidden_states", "x") if name in given)
        times = next((given[name] for name in ("timestep", "times") if given.get(name) is not None), None)
        if times is None:
            times = x.new_zeros(1)
        if not isinstance(times, Tensor):
            times = x.new_tensor([float(times)])
        return x, times.to(x.device).reshape(-1).expand(x.shape[0])

    def blocks(self, model: Model) -> list[BlockParts]:
        """None that could be run in pieces: the model's own forward runs them."""
        return []

    def embed(self, model: Model, x: Tensor) -> Tensor:
        raise RequestError(f"{type(model).__name__!r} is a denoiser; its tokens are reduced within its blocks alone")


def halved(grid: Grid, times: int) -> Grid:
    """A grid after `times` halvings, each rounded up, as a convolution of stride 2 does."""
    rows, columns = grid
    for _ in range(times):
        rows, columns = -(-rows // 2), -(-columns // 2)
    return rows, columns


def downsampling(full: Grid, grid: Grid) -> int:
    """How many times farther apart the tokens of `grid` are than those of `full`, as tomesd counts it: rounded up."""
    return math.ceil(math.sqrt(full[0] * full[1] // (grid[0] * grid[1])))
