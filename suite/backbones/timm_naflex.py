"""timm's NaFlexVit: Vision Transformers whose position embedding is resampled in every forward, so any size will do.

Sources: Dehghani et al., NaViT, arXiv 2307.06304; Beyer et al., FlexiViT, arXiv 2212.08013; Tschannen et al., SigLIP 2,
arXiv 2502.14786. Reduced are batches of images; patches of several sizes beside each other, with padding, are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from timm.layers import apply_keep_indices_nlc
from timm.models import naflexvit
from torch import Tensor, nn

from suite.backbones.base import PartRules
from suite.backbones.timm_blocks import TimmBlock
from suite.backbones.timm_eva import TimmEva
from suite.backbones.timm_vit import ReducedViT, TimmViT
from suite.errors import RequestError
from suite.tokens.places import Places

TIMMS_GRID = (16, 16)  # of position embeddings, where a model says nothing


class ReducedNaFlex(ReducedViT):
    """Mixed into the class of a `NaFlexVit` while a reducer is attached to it."""

    def forward(
        self,
        x: Tensor,
        patch_coord: Tensor | None = None,
        patch_valid: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        check_images(x, patch_coord, patch_valid, attn_mask)
        return super().forward(x)

    def forward_features(
        self,
        patches: Tensor,
        patch_coord: Tensor | None = None,
        patch_valid: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        check_images(patches, patch_coord, patch_valid, attn_mask)
        return super().forward_features(patches)

    def forward_head(self, patches: Tensor, pre_logits: bool = False, patch_valid: Tensor | None = None) -> Tensor:
        check_images(patches, patch_valid)
        return super().forward_head(patches, pre_logits)


def check_images(x: Any, *beside: Tensor | None) -> None:
    """RequestError for what timm takes in place of images: patches with their coordinates, and masks."""
    if isinstance(x, dict) or any(given is not None for given in beside):
        raise RequestError(
            "a reducer takes images (B, 3, H, W), not patches with coordinates and masks; give images of one size as "
            "one tensor, or detach the reducer first"
        )


class TimmNaFlex(TimmViT):
    """The family: where a `NaFlexVit` keeps what `attach` needs."""

    mixin = ReducedNaFlex
    base = naflexvit.NaFlexVit
    parts: Mapping[type[nn.Module], type[TimmBlock]] = {**TimmViT.parts, **TimmEva.parts}
    attentions = (*TimmViT.attentions, *TimmEva.attentions)
    part_rules = PartRules(patch_embed=r"embeds(\.|$)")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        if len({cast(TimmBlock, parts).macs for parts in self.blocks(cast(Any, model))}) > 1:
            raise RequestError(f"model {type(model).__name__!r} has blocks of different costs, such as heads of keys")

    def embed(self, model: Any, x: Tensor) -> Tensor:
        return self.start(model, x)[0]

    def start(self, model: Any, x: Tensor) -> tuple[Tensor, Places | None]:
        embedded = model._forward_embeds(x, patch_coord=None, patch_valid=None, attn_mask=None)
        x, rotations, kept = (embedded[name] for name in ("patches", "rope_embeds", "keep_indices"))
        if rotations is None:
            return x, None
        if model.rope_is_mixed and kept is not None:  # timm does it in every block
            rotations = apply_keep_indices_nlc(x, rotations, kept).transpose(0, 1)
        return x, Places(rotations, model.rope_is_mixed)

    def image_size(self, model: Any) -> tuple[int, int]:
        """That of which timm built it, or prepares its images; else as many patches as position embeddings."""
        embeds, about = model.embeds, getattr(model, "pretrained_cfg", None) or {}
        rows, columns = embeds.pos_embed_grid_size or TIMMS_GRID
        from_grid = rows * embeds.patch_size[0], columns * embeds.patch_size[1]
        height, width = embeds.default_img_size or about.get("input_size", from_grid)[-2:]
        return height, width

    def grid(self, model: Any, size: tuple[int, int]) -> tuple[int, int]:
        rows, columns = model.embeds.dynamic_feat_size(size)
        return rows, columns

    def patch_size(self, model: Any) -> tuple[int, int]:
        height, width = model.embeds.patch_size
        return height, width

    def at_size(self, model: Any, size: tuple[int, int]) -> Any:
        return model

    def class_tokens(self, model: Any) -> int:
        return int(model.has_class_token)

    def embed_macs(self, model: Any, size: tuple[int, int]) -> int:
        return math.prod(self.grid(model, size)) * model.embeds.proj.weight.numel()
