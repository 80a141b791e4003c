"""One file per backbone family; a family says where the pieces of its blocks are."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from suite.backbones.lv_vit import LVViT, LVViTFamily
from suite.backbones.published import PUBLISHED
from suite.backbones.published_git import ANY_GIT, EMBEDDED_GIT, PUBLISHED_GIT
from suite.backbones.timm_vit import TimmViT
from suite.backbones.timm_vit import list_models as list_timm_models

# Looked through in this order: these models are VisionTransformers too, with something of their own around the blocks.
FAMILIES: list[tuple[type[nn.Module], type]] = [(LVViT, LVViTFamily)]


def backbone_of(model: nn.Module) -> nn.Module:
    """The part of `model` that reducers attach to: GIT's image encoder, what a model of ours calls its `backbone`.

    A model that is nothing but a backbone is its own.
    """
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        return backbone
    if _of_git(model):
        from suite.backbones.git import vision_of

        return vision_of(model)
    return model


def family_of(model: nn.Module) -> type:
    """The family of `model`'s backbone. RequestError that says what is supported for any other model."""
    model = backbone_of(model)
    family = next((family for cls, family in FAMILIES if isinstance(model, cls)), None)
    if family is None and _of_git(model):
        from suite.backbones.git import GitViT as family
    family = family or TimmViT
    family.check(model)
    return family


def _of_git(model: nn.Module) -> bool:
    """Whether it is one of transformers' GIT modules; told by name, because importing them takes seconds."""
    return any(cls.__module__ == "transformers.models.git.modeling_git" for cls in type(model).__mro__)


def list_models(pattern: str = "*") -> list[tuple[str, bool]]:
    """Names that match a wildcard, of our own models and timm's, and whether weights of them can be downloaded."""
    names = (*PUBLISHED, *PUBLISHED_GIT, *EMBEDDED_GIT, ANY_GIT)
    own = [(name, name in PUBLISHED_GIT) for name in names if fnmatchcase(name, pattern)]
    return own + list_timm_models(pattern)


__all__ = ["FAMILIES", "PUBLISHED", "backbone_of", "family_of", "list_models"]
