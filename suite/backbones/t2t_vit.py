"""T2T-ViT: a Vision Transformer whose patches are made by attention over overlapping windows.

Source: Yuan et al., Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet, ICCV 2021, arXiv
2101.11986. Parameters have the names of its authors' checkpoints below `patch_embed` (theirs: `tokens_to_token`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import Mlp, PatchEmbed
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from suite.backbones.lv_vit import check_image_size
from suite.errors import RequestError
from suite.tokens.state import full_precision

# (window, stride, padding) of the three soft splits
SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))
TOKEN_WIDTH = 64


class TokenPerformer(nn.Module):
    """Windows (B, N, D) -> tokens (B, N, E) by linear attention on random features (Choromanski et al., ICLR 2021).

    exp(q k') is replaced by phi(q) phi(k)' with phi(x) = exp(w x - |x|^2 / 2) / sqrt(m) and m = E / 2 orthogonal
    directions w. They are sqrt(m) long, as the authors draw them; those of a Gaussian, about sqrt(E), would make the
    estimate unbiased. Widths D and E differ, so the residual of the attention is its values.
    """

    def __init__(self, dim: int, width: int = TOKEN_WIDTH, kernel_ratio: float = 0.5) -> None:
        super().__init__()
        self.norm1, self.kqv = nn.LayerNorm(dim), nn.Linear(dim, 3 * width)
        self.proj, self.dp = nn.Linear(width, width), nn.Dropout(0.1)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.Dropout(0.1))
        features = int(width * kernel_ratio)
        self.register_buffer("w", nn.init.orthogonal_(torch.empty(features, width)) * math.sqrt(features))

    def phi(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, m) positive features."""
        w = cast(Tensor, self.w).to(x.dtype)
        return torch.exp(x @ w.T - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(len(w))

    def attention(self, keys: Tensor, queries: Tensor, values: Tensor) -> Tensor:
        """Each (B, N, E) -> (B, N, E), in N m E multiply-accumulates instead of N^2 E."""
        # exponentials of squared norms: half precision, autocast's too, would leave 2 digits of them
        with torch.autocast(values.device.type, enabled=False):
            keys, queries, values = (full_precision(part) for part in (keys, queries, values))
            keys, queries = self.phi(keys), self.phi(queries)
            total = queries @ keys.sum(1)[..., None]
            return queries @ (keys.transpose(1, 2) @ values) / (total + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        keys, queries, values = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        attended = self.attention(keys, queries, values).to(values.dtype)
        x = values + self.dp(self.proj(attended))
        return x + self.mlp(self.norm2(x))

    def macs(self, count: int) -> int:
        features, width = cast(Tensor, self.w).shape
        per_token = self.kqv.weight.numel() + 4 * features * width + features + 3 * width * width
        return count * per_token


class TokenAttention(nn.Module):
    """Softmax attention of one head, (B, N, D) -> (B, N, E), with its values as the residual."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.scale = dim**-0.5  # by the width of the windows, as in the authors' code
        self.qkv, self.proj = nn.Linear(dim, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x)[:, None].chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(queries, keys, values, scale=self.scale)
        return values[:, 0] + self.proj(attended[:, 0])


class TokenTransformer(nn.Module):
    """Windows (B, N, D) -> tokens (B, N, E) by one transformer layer of MLP ratio 1: the stem of T2T-ViT_t."""

    def __init__(self, dim: int, width: int = TOKEN_WIDTH) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), TokenAttention(dim, width)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def macs(self, count: int) -> int:
        width = self.attn.proj.in_features
        return count * (self.attn.qkv.weight.numel() + 3 * width * width) + 2 * count * count * width


STEMS = {"performer": TokenPerformer, "transformer": TokenTransformer}


class TokensToToken(PatchEmbed):
    """Images (B, 3, H, W) -> patches (B, N, C), each of 16 x 16 pixels: split softly, attend, twice; split, project."""

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 384,
        stem: str = "performer",
        **_: Any,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim)
        self.proj: Any = None  # instead of timm's convolution:
        first, second, third = (side for side, _, _ in SPLITS)
        self.attention1 = STEMS[stem](in_chans * first * first)
        self.attention2 = STEMS[stem](TOKEN_WIDTH * second * second)
        self.project = nn.Linear(TOKEN_WIDTH * third * third, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        check_image_size(x, self.img_size)
        for (window, stride, padding), layer in zip(SPLITS, (self.attention1, self.attention2, self.project)):
            rows, columns = x.shape[-2] // stride, x.shape[-1] // stride
            tokens = layer(F.unfold(x, window, stride=stride, padding=padding).transpose(1, 2))
            x = tokens.transpose(1, 2).unflatten(2, (rows, columns))
        return tokens

    def macs(self, size: tuple[int, int]) -> int:
        """Multiply-accumulates of one image of `size` (H, W): none of it shrinks when tokens do."""
        area = size[0] * size[1]
        return (
            self.attention1.macs(area // 16)
            + self.attention2.macs(area // 64)
            + area // 256 * self.project.weight.numel()
        )


def sinusoids(count: int, width: int) -> Tensor:
    """(1, count, width) fixed positions: sines of i / 10000^(2k / width) in even places, cosines in odd ones."""
    frequency = 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(count, dtype=torch.float64)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[None, :, :width].float()


class Times(nn.Module):
    """x * factor. It stands where timm's attention has its norm of queries, so attention needs no other forward."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class T2TViT(VisionTransformer):
    """The deep and narrow backbone of T2T-ViT on its tokens-to-token stem ('performer' or 'transformer').

    scale: of attention logits; default C^-0.5, with which the published weights were trained, where d^-0.5 is usual.
    RequestError for a patch size other than the 16 that the soft splits amount to.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        num_classes: int = 1000,
        embed_dim: int = 384,
        depth: int = 14,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        stem: str = "performer",
        scale: float | None = None,
        **options: Any,
    ) -> None:
        if patch_size != 16:
            raise RequestError(f"T2T-ViT's patches have 16 pixels, not {patch_size}; leave the patch size out")
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=False,
            embed_layer=partial(TokensToToken, stem=stem),
            norm_layer=nn.LayerNorm,  # epsilon 1e-5, where timm's models have 1e-6
            **options,
        )
        places = cast(nn.Parameter, self.pos_embed)
        with torch.no_grad():
            places.copy_(sinusoids(places.shape[1], embed_dim))
        places.requires_grad_(False)
        for block in self.blocks:
            attention = cast(Attention, cast(Block, block).attn)
            attention.q_norm = Times((scale or embed_dim**-0.5) / attention.scale)
