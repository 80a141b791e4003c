"""One file per backbone family; a family says where the pieces of its blocks are."""

from __future__ import annotations

import importlib

from torch import nn

from suite.backbones.lv_vit import LVViT, LVViTFamily
from suite.backbones.timm_vit import TimmViT

# Looked through in this order: these models are VisionTransformers too, with something of their own around the blocks.
FAMILIES: list[tuple[type[nn.Module], type]] = [(LVViT, LVViTFamily)]
# Where other libraries define models -> 'module:class' of the family. By name, because importing them takes seconds.
GIT, MMSEG_VIT = "transformers.models.git.modeling_git", "mmseg.models.backbones.vit"
FOREIGN = {GIT: "suite.backbones.git:GitViT", MMSEG_VIT: "suite.backbones.mmseg_vit:MmsegViT"}


def backbone_of(model: nn.Module) -> nn.Module:
    """The part of `model` that reducers attach to: GIT's image encoder, what a model of ours calls its `backbone`.

    A model that is nothing but a backbone is its own.
    """
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        return backbone
    if _defined_in(GIT, model):
        from suite.backbones.git import vision_of

        return vision_of(model)
    return model


def family_of(model: nn.Module) -> type:
    """The family of `model`'s backbone. RequestError that says what is supported for any other model."""
    model = backbone_of(model)
    family = next((family for cls, family in FAMILIES if isinstance(model, cls)), None)
    place = next((place for place in FOREIGN if _defined_in(place, model)), None)
    if family is None and place is not None:
        module, _, name = FOREIGN[place].partition(":")
        family = getattr(importlib.import_module(module), name)
    family = family or TimmViT
    family.check(model)
    return family


def _defined_in(place: str, model: nn.Module) -> bool:
    """Whether the model's class, or one that it is made of, is defined in the module of that name."""
    return any(cls.__module__ == place for cls in type(model).__mro__)


__all__ = ["FAMILIES", "backbone_of", "family_of"]
