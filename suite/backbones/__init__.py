"""One file per backbone family; a family says where the pieces of its blocks are."""

from __future__ import annotations

from torch import nn

from suite.backbones.timm_vit import TimmViT, list_models


def family_of(model: nn.Module) -> type:
    """The family that `model` belongs to. RequestError that says what is supported for any other."""
    TimmViT.check(model)
    return TimmViT


__all__ = ["family_of", "list_models"]
