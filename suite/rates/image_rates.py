"""Rates of the image itself: how small it is made, before there are tokens."""

from __future__ import annotations

from dataclasses import dataclass

from suite.errors import RequestError
from suite.rates.form import Rate


@dataclass(frozen=True, repr=False)
class ImageSide(Rate):
    """side=160: the image itself is shrunk, until its shorter side has so many pixels."""

    prefix = form = "side"
    pixels: int

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise RequestError(f"rate {str(self)!r}: an image's side has at least one pixel")

    def _amount(self) -> str:
        return str(self.pixels)

    @property
    def strength(self) -> float:
        return -self.pixels


@dataclass(frozen=True, repr=False)
class PatchGrid(Rate):
    """grid=10: the image itself is shrunk, until so many patches stand along its shorter side."""

    prefix = "grid"
    form = ImageSide.form
    patches: int

    def __post_init__(self) -> None:
        if self.patches < 1:
            raise RequestError(f"rate {str(self)!r}: a grid has at least one patch a side")

    def _amount(self) -> str:
        return str(self.patches)

    @property
    def strength(self) -> float:
        return -self.patches
