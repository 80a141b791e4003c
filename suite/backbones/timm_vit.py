"""timm's VisionTransformer: DeiT, distilled DeiT, AugReg, DeiT-III, MAE, CLIP, DINOv2 and their kin."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from suite.backbones.base import BackboneFamily
from suite.backbones.mixin import Reduced
from suite.backbones.modules import call_as, is_plain
from suite.backbones.timm_sizes import placed
from suite.errors import RequestError
from suite.reducers.signals import BlockParts
from suite.tokens.grouping import full_precision
from suite.tokens.layout import Layout
from suite.tokens.state import Tokens

SUPPORTED = (
    "timm VisionTransformer models with standard pre-norm blocks are supported "
    "(deit_*, deit3_*, vit_*, flexivit_*; see `list models`)"
)


class TimmBlock(BlockParts):
    """timm's `Block` with its `Attention`: LayerScale, drop-path, q/k norm, gate and attention norm where present."""

    def __init__(self, block: Any, index: int, num_class: int) -> None:
        self.block, self.index, self.num_class = block, index, num_class  # timm builds its parts by name: no types
        self.attention: timm_vit.Attention = block.attn
        self.scale, self.fused = self.attention.scale, bool(self.attention.fused_attn)

    def original(self, x: Tensor) -> Tensor:
        return self.block(x)

    def norm1(self, x: Tensor) -> Tensor:
        return self.block.norm1(x)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.split_heads(self.attention.qkv(x))

    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        attention = self.attention
        q, k = self.in_heads(self._rows_of_qkv(x, 0, 2), 2)
        return attention.q_norm(q), attention.k_norm(k)

    def values(self, x: Tensor) -> Tensor:
        return self.in_heads(self._rows_of_qkv(x, 2, 3), 1)[0]

    def _rows_of_qkv(self, x: Tensor, first: int, last: int) -> Tensor:
        """Thirds `first` to `last` of the qkv product: alone, or out of the whole where the layer must be called."""
        linear = self.qkv_linear
        if linear is None:
            third = self.attention.num_heads * self.attention.head_dim
            return self.attention.qkv(x)[..., first * third : last * third]
        third = linear.out_features // 3
        bias = None if linear.bias is None else linear.bias[first * third : last * third]
        return F.linear(x, linear.weight[first * third : last * third], bias)

    @property
    def qkv_linear(self) -> nn.Linear | None:
        return self.attention.qkv if is_plain(self.attention.qkv) else None

    def split_heads(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = self.attention
        q, k, v = self.in_heads(projected, 3)
        return attention.q_norm(q), attention.k_norm(k), v

    def in_heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts·H·d) -> `parts` tensors (B, H, N, d)."""
        batch, count, _ = projected.shape
        heads = projected.reshape(batch, count, parts, self.attention.num_heads, self.attention.head_dim)
        return heads.permute(2, 0, 3, 1, 4).unbind(0)

    def attention_output(self, attended: Tensor, normed: Tensor) -> Tensor:
        """What the attention module returns for heads (B, H, N, d); its hooks see `normed` and that.

        RequestError for a hook that changes what enters: queries, keys and values have been made of it already.
        """
        attention = self.attention

        def forward(entered: Tensor) -> Tensor:
            if entered is not normed:
                raise RequestError(
                    f"a hook changes what enters the attention of block {self.index}, or looks at its gradient, which "
                    "is not possible while a reducer is attached; put it on the block or its norm1"
                )
            x = getattr(attention, "norm", nn.Identity())(attended.transpose(1, 2).flatten(2))
            gate = getattr(attention, "gate", None)
            if gate is not None:
                x = x * gate(normed).sigmoid()
            return attention.proj_drop(attention.proj(x))

        return call_as(attention, forward, normed)

    def attention_branch(self, attended: Tensor, normed: Tensor) -> Tensor:
        return self.block.drop_path1(self.block.ls1(self.attention_output(attended, normed)))

    def mlp_branch(self, x: Tensor) -> Tensor:
        block = self.block
        return block.drop_path2(block.ls2(block.mlp(block.norm2(x))))

    @property
    def attention_dropout(self) -> float:
        return self.attention.attn_drop.p if self.block.training else 0.0

    def dropped(self, attention: Tensor) -> Tensor:
        return self.attention.attn_drop(attention)


class TimmPostNormBlock(TimmBlock):
    """timm's `ResPostBlock`: each branch is normed after it is computed."""

    def norm1(self, x: Tensor) -> Tensor:
        return x

    def attention_branch(self, attended: Tensor, normed: Tensor) -> Tensor:
        return self.block.drop_path1(self.block.norm1(self.attention_output(attended, normed)))

    def mlp_branch(self, x: Tensor) -> Tensor:
        return self.block.drop_path2(self.block.norm2(self.block.mlp(x)))


BLOCKS = {timm_vit.Block: TimmBlock, timm_vit.ResPostBlock: TimmPostNormBlock}


class ReducedViT(Reduced):
    """Mixed into the class of a VisionTransformer while a reducer is attached to it."""

    norm: nn.Module
    attn_pool: nn.Module | None
    global_pool: str
    num_prefix_tokens: int
    fc_norm: nn.Module
    head_drop: nn.Module
    head: nn.Module

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

    def forward(self, x: Tensor) -> Tensor:
        tokens = self._reducerbench.encode(self, x)
        return self._head(self.norm(tokens.x), tokens)

    def forward_intermediates(self, *args: object, **options: object) -> None:
        raise RuntimeError("forward_intermediates would run the blocks unreduced; detach the reducer first")

    def _head(self, x: Tensor, tokens: Tokens, pre_logits: bool = False) -> Tensor:
        """The head on normed features; where it pools over patches, over those present, by sizes if the method says."""
        weight = tokens.size if self._reducerbench.reducer.weighted_pooling else None
        if tokens.presence is not None:
            weight = tokens.presence * (1 if weight is None else weight)
        first = 0 if getattr(self, "pool_include_prefix", False) else self.num_prefix_tokens
        if self.attn_pool is not None and tokens.presence is not None:
            pooled = self._attended(x[:, first:], tokens, first)
        elif self.attn_pool is None and weight is not None and self.global_pool in ("avg", "avgmax", "max"):
            weight, patches = weight[:, first:, None], full_precision(x[:, first:])
            pooled = ((weight * patches).sum(1) / weight.sum(1)).to(x.dtype)
            if self.global_pool != "avg":
                largest = x[:, first:].masked_fill(weight == 0, -torch.inf).amax(dim=1)
                pooled = largest if self.global_pool == "max" else 0.5 * (largest + pooled)
        else:
            return super().forward_head(x, pre_logits)  # type: ignore[misc]  # of what it is mixed into
        x = self.head_drop(self.fc_norm(pooled))
        return x if pre_logits else self.head(x)

    def _attended(self, x: Tensor, tokens: Tokens, first: int) -> Tensor:
        """Attention pooling over the tokens `x` (B, N - first, C) that are no padding: (B, C)."""
        if tokens.valid is None:
            raise RuntimeError("attention pooling over softly pruned tokens is not supported")
        assert self.attn_pool is not None
        padding = ~tokens.valid[:, None, None, first:]
        pooled: Tensor = self.attn_pool(x, attn_mask=x.new_zeros(padding.shape).masked_fill(padding, -torch.inf))
        return pooled


def reads_patches(model: Any) -> bool:
    """Whether a model's head pools over its patches, or attends to them."""
    return model.attn_pool is not None or model.global_pool not in ("", "token")


class TimmViT(BackboneFamily[timm_vit.VisionTransformer]):
    """The family: where a VisionTransformer keeps what `attach` needs."""

    mixin = ReducedViT

    def check(self, model: nn.Module) -> None:
        base = timm_vit.VisionTransformer
        kind = type(model).__name__
        if isinstance(model, ReducedViT):
            raise RequestError("the model has a reducer attached; detach it first")
        if not isinstance(model, base):
            raise RequestError(f"model {kind!r} is not supported; {SUPPORTED}")
        # what a reduced model computes itself; of the head, where it goes by the sizes of tokens
        sized = ("forward_head", "pool") if reads_patches(model) else ()
        for name in ("forward", "forward_features", *sized):
            own = getattr(type(model), name, None) is not getattr(base, name, None)
            if own or (name in sized and name in vars(model)):
                raise RequestError(f"model {kind!r} has a {name} of its own; {SUPPORTED}")
        for block in model.blocks:
            attention = getattr(block, "attn", None)
            if runs_as(block, BLOCKS) is None or runs_as(attention, [timm_vit.Attention]) is None:
                odd = block if runs_as(block, BLOCKS) is None else attention
                raise RequestError(f"model {kind!r} has {type(odd).__name__} in its blocks; {SUPPORTED}")

    def checkpoints(self, model: timm_vit.VisionTransformer) -> bool:
        return model.grad_checkpointing

    def embed(self, model: timm_vit.VisionTransformer, x: Tensor) -> Tensor:
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))

    def at_size(self, model: timm_vit.VisionTransformer, size: tuple[int, int]) -> timm_vit.VisionTransformer:
        return placed(model, size)

    def blocks(self, model: timm_vit.VisionTransformer) -> list[BlockParts]:
        num_class = class_tokens(model)
        kinds = [cast(type[nn.Module], runs_as(block, BLOCKS)) for block in model.blocks]
        return [BLOCKS[kind](model.blocks[i], i, num_class) for i, kind in enumerate(kinds)]

    def image_size(self, model: timm_vit.VisionTransformer) -> tuple[int, int]:
        height, width = cast(PatchEmbed, model.patch_embed).img_size
        return height, width

    def grid(self, model: timm_vit.VisionTransformer, size: tuple[int, int]) -> tuple[int, int]:
        rows, columns = cast(PatchEmbed, model.patch_embed).dynamic_feat_size(size)
        return rows, columns

    def layout(self, model: timm_vit.VisionTransformer, image_size: tuple[int, int] | None = None) -> Layout:
        """The shape at the model's own image size, or at `image_size` (H, W) for a model of dynamic size."""
        block, size = cast(timm_vit.Block, model.blocks[0]), image_size or self.image_size(model)
        attention = cast(timm_vit.Attention, block.attn)
        gate: nn.Module | None = getattr(attention, "gate", None)
        head_token, head = head_macs(model)
        grid = self.grid(model, size)
        return Layout(
            depth=len(model.blocks),
            num_prefix=model.num_prefix_tokens,
            num_class=class_tokens(model),
            num_patches=math.prod(grid),
            width=model.embed_dim,
            heads=attention.num_heads,
            head_dim=attention.head_dim,
            qkv_macs=(qkv := linear_macs(attention.qkv)),
            apart_macs=None if is_plain(attention.qkv) else (qkv, qkv),  # cut out of the whole each time
            proj_macs=linear_macs(attention.proj) + (0 if gate is None else linear_macs(gate)),
            mlp_macs=linear_macs(block.mlp),
            patch_macs=embed_macs(model, size),
            head_macs=head,
            head_token_macs=head_token,
            grid=grid,
        )


def runs_as(module: object, kinds: Iterable[type[nn.Module]]) -> type[nn.Module] | None:
    """The one of `kinds` that a module is, or whose forward its class has inherited, as FSDP's classes do; or None."""
    return next((kind for kind in kinds if isinstance(module, kind) and type(module).forward is kind.forward), None)


def class_tokens(model: timm_vit.VisionTransformer) -> int:
    """Leading tokens that a head reads: 0, 1 (class) or 2 (class and distillation); registers are not among them."""
    return (model.cls_token is not None) + (getattr(model, "dist_token", None) is not None)


def linear_macs(module: nn.Module) -> int:
    """Multiply-accumulates of all linear layers below `module`, for one token."""
    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))


def embed_macs(model: timm_vit.VisionTransformer, size: tuple[int, int]) -> int:
    """Multiply-accumulates that turn an image of `size` (H, W) into patches; a hybrid stem is counted by running it."""
    embed = cast(PatchEmbed, model.patch_embed)
    if (macs := getattr(embed, "macs", None)) is not None:
        return cast(int, macs(size))
    if isinstance(embed.proj, nn.Conv2d) and not hasattr(embed, "backbone"):
        return math.prod(embed.dynamic_feat_size(size)) * embed.proj.weight.numel()
    weight = next(embed.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        embed(torch.zeros(1, 3, *size, device=weight.device, dtype=weight.dtype))
    return counter.get_total_flops() // 2


def head_macs(model: timm_vit.VisionTransformer) -> tuple[int, int]:
    """Multiply-accumulates of the head: per token that reaches it (attention pooling), and per image."""
    heads: list[nn.Module | None] = [model.head, getattr(model, "head_dist", None)]
    fixed = sum(linear_macs(head) for head in heads if head is not None)
    pool = model.attn_pool
    if pool is None:
        return 0, fixed
    latents = getattr(pool, "latent_len", 1)
    inner = pool.num_heads * pool.head_dim
    fixed += latents * (linear_macs(pool.q) + linear_macs(pool.proj) + linear_macs(pool.mlp))
    return linear_macs(pool.kv) + 2 * latents * inner, fixed


def list_models(pattern: str = "*") -> list[tuple[str, bool]]:
    """Names of timm models of this family that match a wildcard, and whether timm has trained weights for them.

    Told apart by how timm defines them, without building them; `TimmViT.check` has the last word.
    """
    found = []
    for name in timm.list_models(module=["vision_transformer", "vision_transformer_hybrid", "deit"]):
        source = inspect.getsource(timm.model_entrypoint(name))
        if fnmatchcase(name, pattern) and not re.search(r"Parallel\w*Block|attn_layer", source):
            found.append((name, bool(timm.list_pretrained(f"{name}.*"))))
    return found
