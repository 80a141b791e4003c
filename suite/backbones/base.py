"""What a backbone family is: what has to be said of its models so that every method runs on them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn

from suite.backbones.mixin import Decoder, Reduced
from suite.errors import RequestError
from suite.reducers.signals import BlockParts
from suite.tokens.layout import Layout
from suite.tokens.places import Places

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class PartRules:
    """Which part of the cost a module belongs to: patterns on its dotted name within the backbone.

    A block's cost outside its MLP is attention; what is neither in a block nor in the patch embedding is head.
    blocks: their names in the order in which they run, where these do not hold their numbers.
    """

    patch_embed: str = r"patch_embed(\.|$)"
    block: str = r"blocks\.(\d+)(\.|$)"
    mlp: str = r"blocks\.\d+\.mlp(\.|$)"
    blocks: tuple[str, ...] = ()

    def block_of(self, name: str) -> int | None:
        """The number of the block that a module is, or is in."""
        if self.blocks:
            inside = (number for number, block in enumerate(self.blocks) if f"{name}.".startswith(f"{block}."))
            return next(inside, None)
        match = re.match(self.block, name)
        return int(match[1]) if match else None


class BackboneFamily(ABC, Generic[Model]):
    """Where the models of a family keep what a reducer is attached to. A family has no state and no options.

    `model` is a backbone of the family, `whole` what it is part of or the backbone itself.
    """

    part_rules = PartRules()

    def rules_of(self, model: Model) -> PartRules:
        """`part_rules` of a model whose blocks are known by their names alone."""
        return self.part_rules

    @property
    @abstractmethod
    def mixin(self) -> type[Reduced]:
        """Mixed into a model's class while a reducer is attached; its forward is `Handle.encode` and a head."""

    @abstractmethod
    def check(self, model: nn.Module) -> None:
        """RequestError, in one line, for a model that is not of this family, or not as its authors wrote it."""

    @abstractmethod
    def embed(self, model: Model, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> tokens (B, N0, C) that enter the first block, protected prefix first."""

    def start(self, model: Model, x: Tensor) -> tuple[Tensor, Places | None]:
        """`embed`, and where the tokens are, for blocks that go by positions; None for others."""
        return self.embed(model, x), None

    @abstractmethod
    def blocks(self, model: Model) -> list[BlockParts]:
        """Where the pieces of every block are, in the order in which they run."""

    def checkpoints(self, model: Model) -> bool:
        """What happens within a block is to be computed again in the backward pass, not kept."""
        return False

    @abstractmethod
    def image_size(self, model: Model) -> tuple[int, int]:
        """(H, W) in pixels that the model was built for."""

    def channels(self, model: Model) -> int:
        """Of an input."""
        return 3

    @abstractmethod
    def grid(self, model: Model, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the patches of an image of `size` (H, W)."""

    @abstractmethod
    def layout(self, model: Model, image_size: tuple[int, int] | None = None) -> Layout:
        """The shape at the model's own image size, or at `image_size` (H, W) for a model that takes others."""

    def patch_size(self, model: Model) -> tuple[int, int]:
        """(height, width) of a patch in pixels."""
        (height, width), (rows, columns) = self.image_size(model), self.grid(model, self.image_size(model))
        return height // rows, width // columns

    def at_size(self, model: Model, size: tuple[int, int]) -> Model:
        """The same model, all weights shared, for `embed` of images of `size` (H, W), in whole patches: position
        embeddings are resampled as its library does it. RequestError for one that takes no other size than its own."""
        raise RequestError(f"model {type(model).__name__!r} takes no images of another size than its own")

    def backbone(self, whole: nn.Module) -> nn.Module:
        """The part of a library's model that reducers attach to; by default `whole` is nothing but that."""
        return whole

    def decoder(self, whole: nn.Module) -> Decoder | None:
        """What `whole` has that reads the tokens and has to be told their number; by default nothing but a head."""
        return None
