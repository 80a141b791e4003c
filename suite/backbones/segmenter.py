"""Segmenter with the mask transformer: a ViT encoder, and a decoder of patches and class embeddings.

Source: Strudel et al., Segmenter: Transformer for Semantic Segmentation, ICCV 2021, arXiv 2105.05633, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from suite.backbones.block import reducible_block
from suite.backbones.timm_blocks import TimmBlock
from suite.errors import RequestError
from suite.reducers.none import Unreduced
from suite.reducers.signals import BlockCall
from suite.tokens.grouping import take
from suite.tokens.state import Tokens

# Mode -> when the encoder gives its tokens back (`Tokens.restoring`).
RESTORE = {"before_decoder": "at_end", "after_decoder": "at_end", "per_block": "per_block"}


class MaskTransformer(nn.Module):
    """Class scores of patches: cosines of patches and class embeddings that went through two blocks together.

    Parameters are named as in the authors' checkpoints. `width` is the decoder's own, by default the encoder's.
    """

    def __init__(
        self, encoder_width: int, num_classes: int, depth: int = 2, width: int | None = None, heads: int | None = None
    ) -> None:
        super().__init__()
        width = width or encoder_width
        self.proj_dec = nn.Linear(encoder_width, width)
        self.blocks = nn.ModuleList(
            Block(width, heads or width // 64, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(depth)
        )
        self.cls_emb = nn.Parameter(torch.empty(1, num_classes, width))
        self.proj_patch = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.proj_classes = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.decoder_norm, self.mask_norm = nn.LayerNorm(width), nn.LayerNorm(num_classes)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)

    @property
    def num_classes(self) -> int:
        return self.cls_emb.shape[1]

    def forward(self, x: Tensor, frozen: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Patches (B, N, C) -> class scores (B, N, K), or (B, N + D, K) with those of `frozen` patches (B, D, C).

        frozen: patches that are read as they are: they take no part in attention and go through no block. valid:
        (B, N) bool, False on padding.
        """
        x = self.proj_dec(x)
        count, classes = x.shape[1], self.cls_emb.expand(len(x), -1, -1)
        if valid is not None:
            valid = F.pad(valid, (0, self.num_classes), value=True)
        tokens = Tokens(torch.cat([x, classes], dim=1), 0, count + self.num_classes, valid=valid)
        for index, block in enumerate(self.blocks):
            call = BlockCall(amount=0, depth=len(self.blocks))
            tokens, _, _ = reducible_block(TimmBlock(block, index, 0), tokens, UNREDUCED, call)
        x = self.decoder_norm(tokens.x)
        patches, classes = x[:, :count], x[:, count:]
        if frozen is not None:
            patches = torch.cat([patches, self.decoder_norm(self.proj_dec(frozen))], dim=1)
        patches = F.normalize(patches @ self.proj_patch, dim=-1)
        classes = F.normalize(classes @ self.proj_classes, dim=-1)
        return self.mask_norm(patches @ classes.transpose(1, 2))


UNREDUCED = Unreduced()


class Segmenter(nn.Module):
    """A timm VisionTransformer, to which reducers attach (`backbone`), and a `MaskTransformer` (`decoder`).

    restore: when tokens that were taken out are given back. 'before_decoder': after the encoder's last norm, to an
    untouched decoder; every patch has what its owner has. 'after_decoder': the decoder runs on the tokens that are
    left, and class scores are given back. 'per_block': after every block; sizes are not carried on. A patch that was
    dropped without an owner keeps the value that it had then; 'after_decoder' reads it past the decoder's blocks.

    `pretrained_cfg` says how images are prepared and which window the model takes, as timm's models do.
    """

    def __init__(
        self, backbone: VisionTransformer, decoder: MaskTransformer, pretrained_cfg: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder
        self.default_cfg = self.pretrained_cfg = dict(pretrained_cfg or {})
        self.restore = "before_decoder"

    @property
    def num_classes(self) -> int:
        return self.decoder.num_classes

    @property
    def window(self) -> tuple[int, int]:
        """(H, W) in pixels of the images that the model takes."""
        return tuple(self.backbone.patch_embed.img_size)

    @property
    def restore(self) -> str:
        return self._restore

    @restore.setter
    def restore(self, mode: str) -> None:
        if mode not in RESTORE:
            raise RequestError(f"restore={mode!r} is unknown; use {', '.join(RESTORE)}")
        self._restore = mode
        vars(self.backbone)["restoring"] = RESTORE[mode]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images -> (B, K, H, W) class scores: `grid_logits`, bilinearly enlarged."""
        return F.interpolate(self.grid_logits(images), images.shape[-2:], mode="bilinear", align_corners=False)

    def grid_logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images -> (B, K, h, w) class scores of every patch, through whatever reducer is attached."""
        inputs, place = self._encode(images)
        scores = self.decoder(*inputs)
        if place is not None:
            scores = take(scores, place)
        return scores.transpose(1, 2).unflatten(2, self._grid(images))

    def _grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of the patches that the decoder gives scores of."""
        handle = getattr(self.backbone, "_reducerbench", None)
        return self.backbone.patch_embed.grid_size if handle is None else handle.images.grid(images.shape[-2:])

    def decoder_inputs(self, images: Tensor) -> tuple[Tensor | None, ...]:
        """What the decoder is called with for images (B, 3, H, W): what its cost is counted on."""
        return self._encode(images)[0]

    def _encode(self, images: Tensor) -> tuple[tuple[Tensor | None, ...], Tensor | None]:
        """Inputs of the decoder and, where its scores are to be given back, (B, P) the row of each patch in them."""
        vit, handle = self.backbone, getattr(self.backbone, "_reducerbench", None)
        prefix = vit.num_prefix_tokens
        if handle is None:
            return (vit.forward_features(images)[:, prefix:],), None
        tokens = handle.encode(vit, images)
        if tokens.active is not None:
            return (self._mixed_back(tokens),), None
        if not tokens.steps and not tokens.soft:  # nothing was taken out, or every block has given it back
            return (vit.norm(tokens.x)[:, prefix:],), None
        rows, place = tokens.restorable()
        rows, place, count = vit.norm(rows), place[:, prefix:], tokens.count
        if self.restore == "before_decoder":
            return (take(rows, place),), None
        frozen = rows[:, count:] if rows.shape[1] > count else None
        valid = None if tokens.valid is None else tokens.valid[:, prefix:]
        return (rows[:, prefix:count], frozen, valid), place - prefix

    def _mixed_back(self, tokens: Tokens) -> Tensor:
        """(B, P, C) what each patch has after soft merging: the mixture, by its shares, of what the norm gives of all
        tokens, as with hard merging it has what the norm gives of its owner."""
        if self.restore != "before_decoder":
            raise RequestError(f"tokens were merged softly (training); use restore=before_decoder, not {self.restore}")
        return tokens.expand(self.backbone.norm(tokens.x))[:, self.backbone.num_prefix_tokens :]


def build_segmenter(
    *,
    image_size: int,
    patch_size: int,
    width: int,
    depth: int,
    heads: int,
    num_classes: int,
    decoder_depth: int = 2,
    decoder_heads: int | None = None,
) -> Segmenter:
    """A Segmenter with random weights. Images are normalised with mean = std = 0.5, as those of timm's AugReg ViTs."""
    vit = VisionTransformer(
        img_size=image_size, patch_size=patch_size, embed_dim=width, depth=depth, num_heads=heads, num_classes=0
    )
    config = {"input_size": (3, image_size, image_size), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    decoder = MaskTransformer(width, num_classes, decoder_depth, heads=decoder_heads)
    return Segmenter(vit, decoder, {**config, "interpolation": "bilinear", "crop_pct": 1.0})
