"""One file per backbone family; a family says where the pieces of its blocks are."""

from __future__ import annotations

import inspect
from functools import cache
from importlib.metadata import EntryPoint
from pkgutil import resolve_name

from torch import nn

from suite.backbones.base import BackboneFamily
from suite.contract.plugins import add_once, load_plugins, refuse_broken
from suite.errors import RequestError

# The module that defines models, as their library or we name it -> 'module:class' of their family. By name, because
# importing some takes seconds. An entry point of a plug-in is such a line.
FAMILIES: dict[str, str] = {
    "timm.models.eva": "suite.backbones.timm_eva:TimmEva",
    "timm.models.naflexvit": "suite.backbones.timm_naflex:TimmNaFlex",
    "timm.models.vision_transformer_relpos": "suite.backbones.timm_relative:TimmRelative",
    "timm.models.beit": "suite.backbones.timm_relative:TimmBeit",
    "suite.backbones.lv_vit": "suite.backbones.lv_vit:LVViTFamily",
    "transformers.models.vit.modeling_vit": "suite.backbones.transformers_vit:TransformersPlain",
    "transformers.models.dinov2.modeling_dinov2": "suite.backbones.transformers_vit:TransformersDinov2",
    "transformers.models.dinov3_vit.modeling_dinov3_vit": "suite.backbones.transformers_vit:TransformersDinov3",
    "transformers.models.clip.modeling_clip": "suite.backbones.transformers_vit:TransformersCLIP",
    "transformers.models.siglip.modeling_siglip": "suite.backbones.transformers_vit:TransformersSiglip",
    "transformers.models.git.modeling_git": "suite.backbones.git:GitViT",
    "suite.backbones.scenes_dit": "suite.backbones.scenes_dit:ScenesDiTFamily",
    "diffusers.models.unets.unet_2d_condition": "suite.backbones.diffusers_blocks:UNetFamily",
    "diffusers.models.transformers.dit_transformer_2d": "suite.backbones.diffusers_blocks:PatchedFamily",
    "diffusers.models.transformers.pixart_transformer_2d": "suite.backbones.diffusers_blocks:PatchedFamily",
    "diffusers.models.transformers.transformer_sd3": "suite.backbones.diffusers_blocks:JointFamily",
    "diffusers.models.transformers.transformer_flux": "suite.backbones.diffusers_blocks:JointFamily",
    "diffusers.models.transformers.sana_transformer": "suite.backbones.diffusers_blocks:JointFamily",
    "mmseg.models.backbones.vit": "suite.backbones.mmseg_vit:MmsegViT",
}
OF_ALL_OTHERS = "suite.backbones.timm_vit:TimmViT"  # which refuses what is not of timm


def backbone_of(model: nn.Module) -> nn.Module:
    """The part of `model` that reducers attach to: GIT's image encoder, what a model of ours calls its `backbone`.

    A model that is nothing but a backbone is its own.
    """
    if not isinstance(model, nn.Module):
        raise RequestError(
            f"{type(model).__name__!r} is no model; pass a torch module, as timm.create_model returns it"
        )
    backbone = getattr(model, "backbone", None)
    return backbone if isinstance(backbone, nn.Module) else _candidate(model).backbone(model)


def family_of(model: nn.Module) -> BackboneFamily:
    """The family of `model`'s backbone. RequestError that says what is supported for any other model, or what of it."""
    model = backbone_of(model)
    family = _candidate(model)
    try:
        family.check(model)
    except RequestError as error:
        inner = _supported_within(model)
        if inner is None:
            raise
        kind = type(model).__name__
        raise RequestError(f"model {kind!r} is not supported itself; pass the inner model: {inner}") from error
    return family


def _supported_within(model: nn.Module) -> str | None:
    """How to get at the first module in a wrapper, such as peft's or DataParallel, that has a family; None without."""
    for name, module in model.named_modules():
        try:
            if name:
                _candidate(module).check(module)
                simple = all(part.isidentifier() for part in name.split("."))
                return f"model.{name}" if simple else f"model.get_submodule({name!r})"
        except RequestError:
            pass
    return None


def _candidate(model: nn.Module) -> BackboneFamily:
    """The family of the nearest of the model's classes whose module has one."""
    _load_plugins()
    for module in (cls.__module__ for cls in type(model).__mro__):
        if module in FAMILIES:
            return _made(FAMILIES[module])
        refuse_broken("family", module)
    return _made(OF_ALL_OTHERS)


@cache
def _made(family: str) -> BackboneFamily:
    return resolve_name(family)()


@cache
def _load_plugins() -> None:
    load_plugins("family", FAMILIES, _add_plugin)


def _add_plugin(point: EntryPoint) -> None:
    """Take a family by the module of its models. TypeError for what is none, or lacks a method."""
    cls = point.load()
    if not (inspect.isclass(cls) and issubclass(cls, BackboneFamily)):
        raise TypeError(f"{cls!r} is no subclass of suite.backbones.base.BackboneFamily")
    cls()  # what is abstract still, cannot be made
    add_once(FAMILIES, "family", point.name, point.value)


__all__ = ["FAMILIES", "backbone_of", "family_of"]
