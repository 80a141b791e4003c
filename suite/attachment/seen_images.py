"""The images that a model is given in place of its own: smaller ones, of a method that shrinks them; else the same."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from suite.backbones.base import BackboneFamily
from suite.rates.image_grid import shrunk_grid
from suite.rates.rate import Rate
from suite.reducers.base import Reducer
from suite.tokens.layout import Layout

Size = tuple[int, int]


class SeenImages:
    """Of one model under a reducer. rate: may be set to another."""

    def __init__(self, family: BackboneFamily[Any], model: nn.Module, reducer: Reducer) -> None:
        self.family, self.model, self.reducer = family, model, reducer
        self._models: dict[Size, nn.Module] = {}

    @property
    def rate(self) -> Rate | None:
        return self._rate

    @rate.setter
    def rate(self, rate: Rate | None) -> None:
        self._rate = rate
        self._sizes: dict[Size, Size] = {}

    def size(self, own: Size) -> Size:
        """(H, W) of what stands for images of size `own`. RequestError where the rate cannot be had of them."""
        if self.reducer.site != "before_embedding":
            return own
        if own not in self._sizes:
            full, patch = self.family.grid(self.model, own), self.family.patch_size(self.model)
            rows, columns = grid = shrunk_grid(self.rate, self.reducer, full, patch)
            self._sizes[own] = own if grid == full else (rows * patch[0], columns * patch[1])
        return self._sizes[own]

    def grid(self, own: Size) -> tuple[int, int]:
        """Rows and columns of the patches that images of size `own` are cut into."""
        height, width = own
        return self.family.grid(self.model, self.size((int(height), int(width))))

    def layout(self, own: Size | None = None) -> Layout:
        """The shape of the model on images of size `own`, default the one that it was built for."""
        return self.family.layout(self.model, self.size(own or self.family.image_size(self.model)))

    def of(self, images: Tensor, model: nn.Module) -> tuple[Tensor, nn.Module]:
        """What is to be embedded of images (B, 3, H, W), and the model that can: `model`, or its copy at that size."""
        own = int(images.shape[-2]), int(images.shape[-1])
        if (size := self.size(own)) == own:
            return images, model
        return self.reducer("before_embedding", images, size), self.at_size(size)

    def at_size(self, size: Size) -> nn.Module:
        """See `BackboneFamily.at_size`; made once."""
        if size not in self._models:
            self._models[size] = self.family.at_size(self.model, size)
        return self._models[size]

    def check(self) -> None:
        """RequestError for a rate that the model's own images cannot have, and for a model that takes no others."""
        own = self.family.image_size(self.model)
        if (size := self.size(own)) != own:
            self.at_size(size)

    def moved(self) -> None:
        """Weights were; what shares them is made again."""
        self._models = {size: self.family.at_size(self.model, size) for size in self._models}
