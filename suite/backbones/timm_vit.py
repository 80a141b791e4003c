"""timm's VisionTransformer: DeiT, distilled DeiT, AugReg, DeiT-III, MAE, CLIP, DINOv2 and their kin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from timm.layers import AttentionPoolLatent, PatchEmbed
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from suite.backbones.base import BackboneFamily
from suite.backbones.mixin import Reduced
from suite.backbones.timm_blocks import TimmBlock, TimmParallelBlock, TimmPostNormBlock, linear_macs
from suite.backbones.timm_sizes import placed
from suite.errors import RequestError
from suite.reducers.signals import BlockParts
from suite.tokens.attention_bias import floored_log
from suite.tokens.grouping import full_precision
from suite.tokens.layout import Layout
from suite.tokens.state import Tokens

SUPPORTED = (
    "timm's Vision Transformers are supported (deit_*, deit3_*, vit_*, eva02_*, beit_*, flexivit_*, naflexvit_*, "
    "vitamin_*; `list models` says which, and why others are not)"
)


class ReducedViT(Reduced):
    """Mixed into the class of a VisionTransformer while a reducer is attached to it."""

    norm: nn.Module
    global_pool: str
    num_prefix_tokens: int
    fc_norm: nn.Module
    head_drop: nn.Module
    head: nn.Module
    pool_attends_to_prefix = False
    """The attention of a pooling head reads prefix tokens whatever the model says."""

    def forward_features(self, x: Tensor) -> Tensor:
        tokens = self._reducerbench.encode(self, x)
        features = self.norm(tokens.x)
        self._reducerbench.give_out(features, tokens)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        tokens = self._reducerbench.behind(x)
        if tokens is not None:
            return self._head(x, tokens, pre_logits)
        if reads_patches(self) and self._reducerbench.reduces:
            raise RuntimeError(
                "forward_head does not know the sizes of these tokens: give it the very tensor that forward_features "
                "returned, not a copy, a part or a conversion of it, or call the whole model"
            )
        return super().forward_head(x, pre_logits)  # type: ignore[misc]  # of what it is mixed into

    @property
    def _attention_pool(self) -> nn.Module | None:
        return getattr(self, "attn_pool", None)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self._reducerbench.encode(self, x)
        return self._head(self.norm(tokens.x), tokens)

    def forward_intermediates(self, *args: object, **options: object) -> None:
        raise RuntimeError("forward_intermediates would run the blocks unreduced; detach the reducer first")

    def _head(self, x: Tensor, tokens: Tokens, pre_logits: bool = False) -> Tensor:
        """The head on normed features; where it pools over patches, over those present, by sizes if the method says.

        One that pools by attention has their logarithm added to its logits, as proportional attention has.
        """
        weight = tokens.size if self._reducerbench.reducer.weighted_pooling else None
        if tokens.presence is not None:
            weight = tokens.presence * (1 if weight is None else weight)
        first = 0 if getattr(self, "pool_include_prefix", False) else self.num_prefix_tokens
        if weight is not None and isinstance(self._attention_pool, AttentionPoolLatent):
            first = 0 if self.pool_attends_to_prefix else first
            bias = self._attention_bias(weight, tokens, first).to(x.dtype)
            pooled = self._attention_pool(x[:, first:], attn_mask=bias)
        elif weight is not None and self._attention_pool is None and self.global_pool in ("avg", "avgmax", "max"):
            weight, patches = weight[:, first:, None], full_precision(x[:, first:])
            pooled = ((weight * patches).sum(1) / weight.sum(1)).to(x.dtype)
            if self.global_pool != "avg":
                largest = x[:, first:].masked_fill(weight == 0, -torch.inf).amax(dim=1)
                pooled = largest if self.global_pool == "max" else 0.5 * (largest + pooled)
        else:
            return super().forward_head(x, pre_logits)  # type: ignore[misc]  # of what it is mixed into
        x = self.head_drop(self.fc_norm(pooled))
        return x if pre_logits else self.head(x)

    def _attention_bias(self, weight: Tensor, tokens: Tokens, first: int) -> Tensor:
        """(B, 1, 1, N - first) what a pooling attention has added to its logits: log weights, -inf on padding."""
        bias = floored_log(weight[:, first:])
        return (bias if tokens.valid is None else bias.masked_fill(~tokens.valid[:, first:], -torch.inf))[:, None, None]


def reads_patches(model: Any) -> bool:
    """Whether a model's head pools over its patches, or attends to them."""
    return getattr(model, "attn_pool", None) is not None or model.global_pool not in ("", "token")


class TimmViT(BackboneFamily[timm_vit.VisionTransformer]):
    """The family: where a VisionTransformer keeps what `attach` needs.

    base: the class of its models. parts: by class of a block, what its parts are. attentions: what they may attend by.
    """

    mixin: type[ReducedViT] = ReducedViT
    base: type[nn.Module] = timm_vit.VisionTransformer
    parts: Mapping[type[nn.Module], type[TimmBlock]] = {
        timm_vit.Block: TimmBlock,
        timm_vit.ResPostBlock: TimmPostNormBlock,
        timm_vit.ParallelScalingBlock: TimmParallelBlock,
    }
    attentions: tuple[type[nn.Module], ...] = (timm_vit.Attention,)

    def check(self, model: nn.Module) -> None:
        base = self.base
        kind = type(model).__name__
        if isinstance(model, ReducedViT):
            raise RequestError("the model has a reducer attached; detach it first")
        if not isinstance(model, base):
            raise RequestError(f"model {kind!r} is not supported; {SUPPORTED}")
        # what a reduced model computes itself; of the head, where it goes by the sizes of tokens
        sized = ("forward_head", "pool", "_pool") if reads_patches(model) else ()
        for name in ("forward", "forward_features", *sized):
            own = getattr(type(model), name, None) is not getattr(base, name, None)
            if own or (name in sized and name in vars(model)):
                raise RequestError(f"model {kind!r} has a {name} of its own; {SUPPORTED}")
        for block in cast(Iterable[nn.Module], model.blocks):
            attention = getattr(block, "attn", None)
            kind_of_block = runs_as(block, self.parts)
            whole = kind_of_block is not None and self.parts[kind_of_block].parallel
            if kind_of_block is None or not (whole or runs_as(attention, self.attentions)):
                odd = block if kind_of_block is None else attention
                raise RequestError(f"model {kind!r} has {type(odd).__name__} in its blocks; {SUPPORTED}")

    def checkpoints(self, model: timm_vit.VisionTransformer) -> bool:
        return model.grad_checkpointing

    def embed(self, model: timm_vit.VisionTransformer, x: Tensor) -> Tensor:
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))

    def at_size(self, model: timm_vit.VisionTransformer, size: tuple[int, int]) -> timm_vit.VisionTransformer:
        return placed(model, size)

    def blocks(self, model: timm_vit.VisionTransformer) -> list[BlockParts]:
        num_class = self.class_tokens(model)
        kinds = [cast(type[nn.Module], runs_as(block, self.parts)) for block in model.blocks]
        return [self.parts[kind](model.blocks[i], i, num_class) for i, kind in enumerate(kinds)]

    def image_size(self, model: timm_vit.VisionTransformer) -> tuple[int, int]:
        height, width = cast(PatchEmbed, model.patch_embed).img_size
        return height, width

    def grid(self, model: timm_vit.VisionTransformer, size: tuple[int, int]) -> tuple[int, int]:
        rows, columns = cast(PatchEmbed, model.patch_embed).dynamic_feat_size(size)
        return rows, columns

    def class_tokens(self, model: timm_vit.VisionTransformer) -> int:
        """Leading tokens that a head reads: 0, 1 (class) or 2 (class and distillation); registers are not of them."""
        return (model.cls_token is not None) + (getattr(model, "dist_token", None) is not None)

    def embed_macs(self, model: timm_vit.VisionTransformer, size: tuple[int, int]) -> int:
        """Multiply-accumulates that make patches of an image of `size` (H, W); a hybrid stem is run and counted."""
        embed = cast(PatchEmbed, model.patch_embed)
        if (macs := getattr(embed, "macs", None)) is not None:
            return cast(int, macs(size))
        if isinstance(embed.proj, nn.Conv2d) and not hasattr(embed, "backbone"):
            return math.prod(embed.dynamic_feat_size(size)) * embed.proj.weight.numel()
        weight = next(embed.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            embed(torch.zeros(1, 3, *size, device=weight.device, dtype=weight.dtype))
        return counter.get_total_flops() // 2

    def layout(self, model: timm_vit.VisionTransformer, image_size: tuple[int, int] | None = None) -> Layout:
        """The shape at the model's own image size, or at `image_size` (H, W) for a model of dynamic size."""
        parts, size = cast(TimmBlock, self.blocks(model)[0]), image_size or self.image_size(model)
        qkv, proj, mlp = parts.macs
        head_token, head = head_macs(model)
        whole = self.mixin.pool_attends_to_prefix or getattr(model, "pool_include_prefix", False)
        unread = 0 if whole else model.num_prefix_tokens  # of the tokens that reach the head
        grid = self.grid(model, size)
        return Layout(
            depth=len(model.blocks),
            num_prefix=model.num_prefix_tokens,
            num_class=self.class_tokens(model),
            num_patches=math.prod(grid),
            width=model.embed_dim,
            heads=parts.heads,
            head_dim=parts.head_dim,
            qkv_macs=qkv,
            apart_macs=parts.apart_macs,
            proj_macs=proj,
            mlp_macs=mlp,
            patch_macs=self.embed_macs(model, size),
            head_macs=head - unread * head_token,
            head_token_macs=head_token,
            grid=grid,
        )


def runs_as(module: object, kinds: Iterable[type[nn.Module]]) -> type[nn.Module] | None:
    """The one of `kinds` that a module is, or whose forward its class has inherited, as FSDP's classes do; or None."""
    return next((kind for kind in kinds if isinstance(module, kind) and type(module).forward is kind.forward), None)


def head_macs(model: timm_vit.VisionTransformer) -> tuple[int, int]:
    """Multiply-accumulates of the head: per token that reaches it (attention pooling), and per image."""
    heads: list[nn.Module | None] = [model.head, getattr(model, "head_dist", None)]
    fixed = sum(linear_macs(head) for head in heads if head is not None)
    pool = getattr(model, "attn_pool", None)
    if pool is None:
        return 0, fixed
    latents = getattr(pool, "latent_len", 1)
    inner = pool.num_heads * pool.head_dim
    fixed += latents * (linear_macs(pool.q) + linear_macs(pool.proj) + linear_macs(pool.mlp))
    return linear_macs(pool.kv) + 2 * latents * inner, fixed
