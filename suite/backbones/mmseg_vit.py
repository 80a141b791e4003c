"""mmsegmentation's VisionTransformer, as its Segmenter has it, with or without class token and norm before the blocks.

Importing this needs mmcv with compiled operators, as importing mmsegmentation's models does.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmseg.models.backbones.vit import TransformerEncoderLayer, VisionTransformer
from torch import Tensor, nn

from suite.backbones.base import BackboneFamily, PartRules
from suite.backbones.mixin import Reduced
from suite.backbones.timm_blocks import linear_macs
from suite.errors import RequestError
from suite.reducers.signals import BlockParts
from suite.tokens.grouping import take
from suite.tokens.layout import Layout

SUPPORTED = "mmsegmentation's VisionTransformer is supported within a Segmenter (model mmseg:CONFIG.py)"


class InProjection(nn.MultiheadAttention):
    """torch's attention, of which a call gives queries, keys and values alone: as a module, so that counters see it."""

    def forward(self, x: Tensor, first: int = 0, last: int = 3) -> tuple[Tensor, ...]:  # type: ignore[override]
        """(B, N, C) -> of queries, keys, values those from `first` to before `last`, each (B, H, N, d)."""
        rows = slice(first * self.embed_dim, last * self.embed_dim)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        projected = F.linear(x, self.in_proj_weight[rows], bias)
        heads = projected.unflatten(2, (last - first, self.num_heads, self.head_dim))
        return heads.permute(2, 0, 3, 1, 4).unbind(0)


class FusedAttention(MultiheadAttention):
    """mmcv's self-attention through `scaled_dot_product_attention`: the same weights, no map in memory."""

    def forward(self, query: Tensor, identity: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C), `identity` included."""
        dropout = self.attn.dropout if self.training else 0.0
        q, k, v = self.attn(query)
        return identity + self.output(F.scaled_dot_product_attention(q, k, v, dropout_p=dropout))

    def output(self, attended: Tensor) -> Tensor:
        """Heads (B, H, N, d) -> what attention adds to the residual stream, (B, N, C)."""
        return self.dropout_layer(self.proj_drop(self.attn.out_proj(attended.transpose(1, 2).flatten(2))))


def use_fused_attention(model: nn.Module) -> None:
    """From now on the blocks of a VisionTransformer, or of a Segmenter's head, run fused attention."""
    for module in model.modules():
        attention: Any = module.attn if type(module) is TransformerEncoderLayer else None
        if type(attention) is MultiheadAttention:
            attention.__class__, attention.attn.__class__ = FusedAttention, InProjection


class MmsegBlock(BlockParts):
    """mmsegmentation's `TransformerEncoderLayer`: pre-norm, both residual connections within its attention and MLP."""

    fused = True

    def __init__(self, block: TransformerEncoderLayer, index: int, num_class: int) -> None:
        self.block, self.attention, self.index, self.num_class = block, block.attn, index, num_class
        self.in_pieces = {"attention": block.attn, "MLP": block.ffn}
        self.scale = block.attn.attn.head_dim**-0.5

    def original(self, x: Tensor) -> Tensor:
        return self.block(x)

    def norm1(self, x: Tensor) -> Tensor:
        return self.block.norm1(x)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.attention.attn(x)

    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention.attn(x, 0, 2)

    def values(self, x: Tensor) -> Tensor:
        return self.attention.attn(x, 2, 3)[0]

    def attention_branch(self, attended: Tensor, normed: Tensor) -> Tensor:
        return self.attention.output(attended)

    def mlp_branch(self, x: Tensor) -> Tensor:
        ffn = self.block.ffn
        return ffn.dropout_layer(ffn.gamma2(ffn.layers(self.block.norm2(x))))

    @property
    def attention_dropout(self) -> float:
        return self.attention.attn.dropout if self.block.training else 0.0


class SegmenterViT(VisionTransformer):
    """mmsegmentation's, with fused attention and what a `Segmenter` of ours asks of its encoder by timm's names."""

    restoring = "at_end"  # whatever reads its output wants all patches in their places

    @property
    def num_prefix_tokens(self) -> int:
        return int(self.with_cls_token)

    def norm(self, x: Tensor) -> Tensor:
        """What follows the last block, where the model has it."""
        return self.norm1(x) if self.final_norm else x

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> tokens (B, N0, C) that enter the first block."""
        x, grid = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = self._pos_embeding(x, grid, self.pos_embed)
        x = x if self.with_cls_token else x[:, 1:]
        return self.pre_ln(x) if self.pre_norm else x

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> all tokens after the last block, normed, (B, N, C)."""
        x = self.embed(images)
        for block in self.layers:
            x = block(x)
        return self.norm(x)


def for_segmenter(vit: VisionTransformer) -> SegmenterViT:
    """The same model, which a `Segmenter` can have as its encoder from now on. RequestError for one that cannot be."""
    last = len(vit.layers) - 1
    if list(vit.out_indices) != [last] or vit.out_origin or vit.output_cls_token:
        raise RequestError(f"mmsegmentation's VisionTransformer gives out more than the patches of block {last}")
    use_fused_attention(vit)
    vit.__class__ = SegmenterViT
    vit.patch_embed.img_size = tuple(vit.img_size)
    vit.patch_embed.grid_size = grid_of(vit, vit.patch_embed.img_size)
    return vit


def grid_of(vit: VisionTransformer, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the patches of an image of `size` (H, W), which is padded to whole patches."""
    return math.ceil(size[0] / vit.patch_size), math.ceil(size[1] / vit.patch_size)


class ReducedMmsegViT(Reduced):
    """Mixed into the class of a `SegmenterViT` while a reducer is attached to it."""

    norm: nn.Module

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        """Images (B, 3, H, W) -> the patches after the last block, (B, C, h, w), each what its owner is."""
        tokens = self._reducerbench.encode(self, inputs)
        x = tokens.x
        if tokens.steps or tokens.soft:
            rows, place = tokens.restorable()
            x = take(rows, place)
        grid = self._reducerbench.images.grid((inputs.shape[-2], inputs.shape[-1]))
        return (self.norm(x)[:, tokens.num_prefix :].transpose(1, 2).unflatten(2, grid),)


class MmsegViT(BackboneFamily[SegmenterViT]):
    """The family: where a `VisionTransformer` of mmsegmentation keeps what `attach` needs."""

    mixin = ReducedMmsegViT
    part_rules = PartRules(block=r"layers\.(\d+)(\.|$)", mlp=r"layers\.\d+\.ffn(\.|$)")

    def check(self, model: nn.Module) -> None:
        kind = type(model).__name__
        if isinstance(model, ReducedMmsegViT):
            raise RequestError("the model has a reducer attached; detach it first")
        if type(model) is not SegmenterViT:
            raise RequestError(f"model {kind!r} is not supported as it is; {SUPPORTED}")
        for block in model.layers:
            layers = (block, TransformerEncoderLayer), (block.attn, FusedAttention), (block.attn.attn, InProjection)
            odd = next((layer for layer, known in layers if type(layer) is not known), None)
            if odd is not None:
                raise RequestError(f"model {kind!r} has {type(odd).__name__} in its blocks; {SUPPORTED}")

    def checkpoints(self, model: SegmenterViT) -> bool:
        return any(block.with_cp for block in model.layers)

    def embed(self, model: SegmenterViT, x: Tensor) -> Tensor:
        return model.embed(x)

    def at_size(self, model: SegmenterViT, size: tuple[int, int]) -> SegmenterViT:
        """The model itself: mmsegmentation resamples position embeddings wherever they do not fit."""
        return model

    def blocks(self, model: SegmenterViT) -> list[BlockParts]:
        return [MmsegBlock(block, index, model.num_prefix_tokens) for index, block in enumerate(model.layers)]

    def image_size(self, model: VisionTransformer) -> tuple[int, int]:
        return tuple(model.img_size)

    def grid(self, model: VisionTransformer, size: tuple[int, int]) -> tuple[int, int]:
        return grid_of(model, size)

    def layout(self, model: VisionTransformer, image_size: tuple[int, int] | None = None) -> Layout:
        """The shape at the model's own image size, or at `image_size` (H, W)."""
        rows, columns = self.grid(model, image_size or self.image_size(model))
        attention, width = model.layers[0].attn, model.layers[0].attn.embed_dims
        return Layout(
            depth=len(model.layers),
            num_prefix=model.num_prefix_tokens,
            num_class=model.num_prefix_tokens,
            num_patches=rows * columns,
            width=width,
            heads=attention.num_heads,
            head_dim=width // attention.num_heads,
            qkv_macs=3 * width * width,
            proj_macs=linear_macs(attention),
            mlp_macs=linear_macs(model.layers[0].ffn),
            patch_macs=rows * columns * model.patch_embed.projection.weight.numel(),
            head_macs=0,
            grid=(rows, columns),
        )
