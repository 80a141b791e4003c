"""LV-ViT: a Vision Transformer with a convolutional stem, halved branches and a second head on its patch tokens.

Source: Jiang et al., All Tokens Matter: Token Labeling for Training Better Vision Transformers, NeurIPS 2021, arXiv
2104.10858. Parameters have the names of its authors' checkpoints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from suite.backbones.timm_blocks import linear_macs
from suite.backbones.timm_vit import ReducedViT, TimmViT
from suite.tokens.layout import Layout
from suite.tokens.state import Tokens


class ConvStem(PatchEmbed):
    """Images (B, 3, H, W) -> patches (B, N, C): 7 x 7 / 2, two 3 x 3, then a projection of half the patch size.

    A batch norm and a ReLU follow every convolution but the projection.
    """

    def __init__(
        self, img_size: int = 224, patch_size: int = 16, in_chans: int = 3, embed_dim: int = 384, **_: Any
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim)
        width, half = 64, patch_size // 2
        self.conv1 = nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.proj = nn.Conv2d(width, embed_dim, half, stride=half)

    def forward(self, x: Tensor) -> Tensor:
        check_image_size(x, self.img_size)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        return self.proj(x).flatten(2).transpose(1, 2)

    def macs(self, size: tuple[int, int]) -> int:
        """Multiply-accumulates of one image of `size` (H, W): none of it shrinks when tokens do."""
        height, width = size
        wide = sum(conv.weight.numel() for conv in (self.conv1, self.conv2, self.conv3))
        rows, columns = self.dynamic_feat_size(size)
        return (height // 2) * (width // 2) * wide + rows * columns * self.proj.weight.numel()


def check_image_size(x: Tensor, size: tuple[int, int]) -> None:
    """AssertionError, as timm raises it, for images (B, 3, H, W) of another size."""
    height, width = x.shape[-2:]
    torch._assert(height == size[0], f"Input height ({height}) doesn't match model ({size[0]}).")
    torch._assert(width == size[1], f"Input width ({width}) doesn't match model ({size[1]}).")


class Divide(nn.Module):
    """x / by. It stands where timm's blocks have LayerScale, so that a block needs no forward of its own."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x / self.by

    def extra_repr(self) -> str:
        return f"by={self.by}"


class LVViT(VisionTransformer):
    """Both branches of every block are divided by `skip_lam`; logits come from the class token and from all patches.

    What is trained by dense labels is the second head, `aux_head`; here both modes give the logits of evaluation.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        num_classes: int = 1000,
        embed_dim: int = 384,
        depth: int = 16,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        skip_lam: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=False,
            embed_layer=ConvStem,
            norm_layer=nn.LayerNorm,  # epsilon 1e-5, where timm's models have 1e-6
            **options,
        )
        for block in self.blocks:
            block.ls1, block.ls2 = Divide(skip_lam), Divide(skip_lam)
        self.aux_head = self._new_aux_head()

    def _new_aux_head(self) -> nn.Module:
        if not self.num_classes:
            return nn.Identity()
        head = nn.Linear(self.embed_dim, self.num_classes).to(self.cls_token)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        super().reset_classifier(num_classes, global_pool)
        self.aux_head = self._new_aux_head()

    def forward_head(self, x: Tensor, pre_logits: bool = False, present: Tensor | None = None) -> Tensor:
        """Normed tokens (B, N, C) -> logits (B, K): head(class) + 0.5 max over patches of aux_head(patch).

        The maximum is taken class by class, over the patch tokens that are left: merged ones speak once. `present`
        (B, N - 1) bool leaves out those that are none. Without classes, or with `pre_logits`, the class token (B, C).
        """
        token = self.head_drop(x[:, 0])
        if pre_logits or not self.num_classes:
            return token
        dense = self.aux_head(x[:, self.num_prefix_tokens :])
        if present is not None:
            dense = dense.masked_fill(~present[..., None], -torch.inf)
        return self.head(token) + 0.5 * dense.amax(dim=1)


class ReducedLVViT(ReducedViT):
    """Mixed into `LVViT` while a reducer is attached to it."""

    _head_reads_patches = True

    def _head(self, x: Tensor, tokens: Tokens, pre_logits: bool = False) -> Tensor:
        present = None if tokens.presence is None else tokens.presence > 0
        if tokens.active is not None:  # soft merging leaves tokens behind that it has emptied
            present = tokens.sizes != 0
        if present is not None:
            present = present[:, self.num_prefix_tokens :]
        return LVViT.forward_head(cast(LVViT, self), x, pre_logits, present)


class LVViTFamily(TimmViT):
    """timm's blocks; another stem, and a head that pays for every patch token."""

    mixin = ReducedLVViT

    def layout(self, model: VisionTransformer, image_size: tuple[int, int] | None = None) -> Layout:
        layout = super().layout(model, image_size)
        dense = linear_macs(cast(LVViT, model).aux_head)
        return replace(
            layout,
            # the dense head runs on patches, the closed form multiplies by all tokens
            head_macs=layout.head_macs - layout.num_prefix * dense,
            head_token_macs=dense,
        )
