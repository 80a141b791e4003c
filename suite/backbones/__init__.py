"""One file per backbone family; a family says where the pieces of its blocks are."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from suite.backbones.lv_vit import LVViT, LVViTFamily
from suite.backbones.published import PUBLISHED
from suite.backbones.timm_vit import TimmViT
from suite.backbones.timm_vit import list_models as list_timm_models

# Looked through in this order: these models are VisionTransformers too, with something of their own around the blocks.
FAMILIES: list[tuple[type[nn.Module], type]] = [(LVViT, LVViTFamily)]


def family_of(model: nn.Module) -> type:
    """The family that `model` belongs to. RequestError that says what is supported for any other."""
    family = next((family for cls, family in FAMILIES if isinstance(model, cls)), TimmViT)
    family.check(model)
    return family


def list_models(pattern: str = "*") -> list[tuple[str, bool]]:
    """Names that match a wildcard, of our own models and timm's, and whether weights of them can be downloaded."""
    own = [(name, False) for name in PUBLISHED if fnmatchcase(name, pattern)]
    return own + list_timm_models(pattern)


__all__ = ["FAMILIES", "PUBLISHED", "family_of", "list_models"]
