"""timm's Vision Transformers with a bias on the logits of every pair of places: Beit, BEiT v2, vit_relpos_*.

Sources: Bao et al., BEiT, arXiv 2106.08254; Liu et al., Swin, arXiv 2103.14030, and v2, arXiv 2111.09883. The bias
between merged and pruned tokens is gathered or averaged: see `suite.tokens.places`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from timm.models import beit
from timm.models import vision_transformer_relpos as relpos
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from suite.backbones.timm_blocks import TimmBlock, TimmPostNormBlock
from suite.backbones.timm_eva import BiasedBlock
from suite.backbones.timm_vit import TimmViT
from suite.errors import RequestError
from suite.tokens.layout import Layout
from suite.tokens.places import Places, bias_of
from suite.tokens.state import Tokens


class RelativeBlock(TimmBlock):
    """timm's `RelPosBlock`. shared: (..., H, N0, N0) bias of all blocks; tokens: those that it is about to run on."""

    shared: Tensor | None = None
    tokens: Tokens | None = None

    def at(self, tokens: Tokens) -> TimmBlock:
        if tokens.places is None or tokens.places.place is None:
            return self
        twin = copy.copy(self)
        twin.tokens, twin.takes_any = tokens, False
        return twin

    def original(self, x: Tensor) -> Tensor:
        return self.block(*self.given(x))

    def given(self, x: Tensor) -> tuple[Any, ...]:
        return x, self.shared

    @property
    def position_bias(self) -> Tensor | None:  # type: ignore[override]
        parts = [bias for bias in (self.bias(), self.shared) if bias is not None]
        if not parts:
            return None
        bias = sum(parts[1:], start=parts[0])
        bias = bias if bias.dim() == 4 else bias[None]
        return bias if self.tokens is None else bias_of(self.tokens, bias)

    def bias(self) -> Tensor | None:
        """(1, H, N0, N0) of this block alone."""
        of_pairs = self.attention.rel_pos
        return None if of_pairs is None else of_pairs.get_bias()


class RelativePostNormBlock(RelativeBlock):
    """timm's `ResPostRelPosBlock`: each branch is normed after it is computed."""

    norm1 = TimmPostNormBlock.norm1
    attention_branch = TimmPostNormBlock.attention_branch
    mlp_branch = TimmPostNormBlock.mlp_branch


class BeitBlock(RelativeBlock, BiasedBlock):
    """timm's `Block` of Beit."""

    def bias(self) -> Tensor | None:
        table = self.attention.relative_position_bias_table
        return None if table is None else self.attention._get_rel_pos_bias()

    def prepared(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q, k


class TimmRelative(TimmViT):
    """The family: where a `VisionTransformerRelPos` keeps what `attach` needs."""

    base: type[nn.Module] = relpos.VisionTransformerRelPos
    parts: Mapping[type[nn.Module], type[TimmBlock]] = {
        relpos.RelPosBlock: RelativeBlock,
        relpos.ResPostRelPosBlock: RelativePostNormBlock,
    }
    attentions: tuple[type[nn.Module], ...] = (relpos.RelPosAttention,)

    def embed(self, model: Any, x: Tensor) -> Tensor:
        x = model.patch_embed(x)
        return x if model.cls_token is None else torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)

    def start(self, model: Any, x: Tensor) -> tuple[Tensor, Places | None]:
        return self.embed(model, x), Places()

    def blocks(self, model: Any) -> list[Any]:
        blocks: list[Any] = list(super().blocks(model))
        shared = self.shared(model)
        for parts in blocks:
            parts.shared = shared
        return blocks

    def shared(self, model: Any) -> Tensor | None:
        """(..., H, N0, N0) bias of all blocks."""
        return None if model.shared_rel_pos is None else model.shared_rel_pos.get_bias()

    def layout(self, model: Any, image_size: tuple[int, int] | None = None) -> Layout:
        """Biases that are computed by small networks are counted with the patches: they depend on the grid alone."""
        layout = super().layout(model, image_size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            for parts in self.blocks(model):
                parts.bias()
        return replace(layout, patch_macs=layout.patch_macs + counter.get_total_flops() // 2)

    def at_size(self, model: Any, size: tuple[int, int]) -> Any:
        kind = type(model).__name__
        raise RequestError(f"model {kind!r} has a bias for every pair of places of its own grid, so no other size")


class TimmBeit(TimmRelative):
    """The family: where a `Beit` keeps what `attach` needs."""

    base = beit.Beit
    parts: Mapping[type[nn.Module], type[TimmBlock]] = {beit.Block: BeitBlock}
    attentions = (beit.Attention,)

    def embed(self, model: Any, x: Tensor) -> Tensor:
        x = super().embed(model, x)
        return model.pos_drop(x if model.pos_embed is None else x + model.pos_embed)

    def shared(self, model: Any) -> Tensor | None:
        return None if model.rel_pos_bias is None else model.rel_pos_bias()
