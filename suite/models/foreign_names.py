"""The names that other libraries give a Vision Transformer's parameters, and timm's for them.

Names are matched by whole parts, wherever a model stands in a file: 'vit.encoder.layer.0.' as 'encoder.layer.0.'.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

State = dict[str, Tensor]


def _as_is(key: str, value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class Naming:
    """One library's names.

    label: what it is called. mark: the end of a name that no other library has. pairs: patterns and what is put in
    their place, one after the other. unread: pattern of names that its classifier does not read. reshaped: a value as
    timm has it, by its name here.
    """

    label: str
    mark: str
    pairs: tuple[tuple[str, str], ...]
    unread: str = r"(?!)"
    reshaped: Callable[[str, Tensor], Tensor] = _as_is

    def translate(self, tensors: Mapping[str, Tensor]) -> State:
        """Tensors by timm's names, as far as they have one."""
        classifies = any(re.search(r"(^|\.)classifier\.weight$", key) for key in tensors)
        pairs = [(re.compile(rf"(?<![^.])(?:{pattern})"), ours) for pattern, ours in self.pairs]
        unread, found = re.compile(rf"(?<![^.])(?:{self.unread})"), {}
        for key, value in tensors.items():
            if classifies and unread.search(key):
                continue
            name = key
            for pattern, ours in pairs:
                name = pattern.sub(ours, name)
            found[name] = self.reshaped(key, value)
        return found


TRANSFORMERS = Naming(
    "transformers",
    "embeddings.patch_embeddings.projection.weight",
    (
        (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"embeddings\.position_embeddings$", "pos_embed"),
        (r"embeddings\.distillation_token$", "dist_token"),
        (r"embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
        (r"(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
        (r"layernorm_before\.", "norm1."),
        (r"layernorm_after\.", "norm2."),
        (r"attention\.(?:attention\.)?(query|key|value|[qkv]_proj)\.", r"attn.\1."),
        (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
        (r"intermediate\.dense\.|mlp\.weights_in\.", "mlp.fc1."),
        (r"output\.dense\.|mlp\.(?:weights_out|down_proj)\.", "mlp.fc2."),
        (r"layer_scale(\d)\.lambda1$", r"ls\1.gamma"),
        (r"layernorm\.", "norm."),
        (r"(?:cls_)?classifier\.", "head."),
        (r"distillation_classifier\.", "head_dist."),
    ),
)
SIGLIP = Naming(
    "transformers' SigLIP",
    "embeddings.patch_embedding.weight",
    (
        (r"embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"embeddings\.position_embedding\.weight$", "pos_embed"),
        (r"encoder\.layers\.(\d+)\.", r"blocks.\1."),
        (r"layer_norm(\d)\.", r"norm\1."),
        (r"self_attn\.", "attn."),
        (r"post_layernorm\.", "norm."),
        (r"head\.probe$", "attn_pool.latent"),
        (r"head\.attention\.", "attn_pool."),
        (r"head\.layernorm\.", "attn_pool.norm."),
        (r"head\.mlp\.", "attn_pool.mlp."),
        (r"classifier\.", "head."),
    ),
    unread=r"head\.(?:probe$|attention\.|layernorm\.|mlp\.)",  # its classifier reads the mean of the patches
    reshaped=lambda key, value: value[None] if key.endswith("position_embedding.weight") else value,
)
TORCHVISION = Naming(
    "torchvision",
    "conv_proj.weight",
    (
        (r"conv_proj\.", "patch_embed.proj."),
        (r"class_token$", "cls_token"),
        (r"encoder\.pos_embedding$", "pos_embed"),
        (r"encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"ln_(\d)\.", r"norm\1."),
        (r"self_attention\.", "attn."),
        (r"mlp\.(?:linear_1|0)\.", "mlp.fc1."),
        (r"mlp\.(?:linear_2|3)\.", "mlp.fc2."),
        (r"encoder\.ln\.", "norm."),
        (r"heads\.head\.", "head."),
    ),
)


def _from_flax(key: str, value: Tensor) -> Tensor:
    """A layer's kernel as torch has it: outputs first, and without axes for the heads."""
    if not key.endswith("kernel"):
        return value.flatten() if key.endswith("bias") else value
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1)
    if value.ndim == 3:  # (heads, width of one, C) on the way out of attention, (C, heads, width of one) into it
        value = value.flatten(0, 1) if ".out." in key else value.flatten(1)
    return value.T


BIG_VISION = Naming(
    "big_vision",
    "embedding.kernel",
    (
        (r"embedding\.", "patch_embed.proj."),
        (r"(?:Transformer\.posembed_input\.)?pos_embedding$", "pos_embed"),
        (r"cls$", "cls_token"),
        (r"Transformer\.encoder_norm\.", "norm."),
        (r"MAPHead_0\.LayerNorm_0\.", "attn_pool.norm."),
        (r"MAPHead_0\.probe$", "attn_pool.latent"),
        (r"MAPHead_0\.MultiHeadDotProductAttention_0\.", "attn_pool."),
        (r"MAPHead_0\.", "attn_pool."),
        (r"Transformer\.encoderblock_(\d+)\.", r"blocks.\1."),
        (r"LayerNorm_0\.", "norm1."),
        (r"LayerNorm_[12]\.", "norm2."),
        (r"MultiHeadDotProductAttention_\d\.", "attn."),
        (r"out\.", "proj."),
        (r"MlpBlock_\d\.Dense_0\.", "mlp.fc1."),
        (r"MlpBlock_\d\.Dense_1\.", "mlp.fc2."),
        (r"(?:kernel|scale)$", "weight"),
    ),
    reshaped=_from_flax,
)
NAMINGS = (TRANSFORMERS, SIGLIP, TORCHVISION, BIG_VISION)


def translate(tensors: Mapping[str, Tensor]) -> tuple[State, str]:
    """Tensors by timm's names, and the library whose names they had, '' where these are timm's, or not known."""
    for naming in NAMINGS:
        if any(f".{key}".endswith(f".{naming.mark}") for key in tensors):
            return naming.translate(dict(_apart(tensors))), naming.label
    return dict(tensors), ""


def _apart(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """With a tensor for each block where all blocks are stacked in one, as a scan over them leaves it."""
    for key, value in tensors.items():
        if re.search(r"(?<![^.])Transformer\.encoderblock\.", key):
            for block, own in enumerate(value):
                yield key.replace("encoderblock.", f"encoderblock_{block}."), own
        else:
            yield key, value
