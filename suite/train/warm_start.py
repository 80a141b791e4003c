"""GIT's image encoder, started from the embedded classifier of the same shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers.models.git.modeling_git import GitVisionTransformer

# Parts of a timm block by the names that transformers gives them; qkv is split besides.
_PARTS = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj", "mlp": "mlp"}


def rename_weights(vit: VisionTransformer) -> dict[str, Tensor]:
    """The classifier's weights by the names of `GitVisionTransformer`; all but those of the norm before the blocks.

    GIT's patch embedding has no bias: it goes into the position embeddings of the patches.
    """
    token, places = cast(nn.Parameter, vit.cls_token), cast(nn.Parameter, vit.pos_embed)
    state = {
        "embeddings.class_embedding": token[0, 0],
        "embeddings.patch_embedding.weight": vit.patch_embed.proj.weight,
        "embeddings.position_embedding.weight": places[0].clone(),
        "post_layernorm.weight": vit.norm.weight,
        "post_layernorm.bias": vit.norm.bias,
    }
    state["embeddings.position_embedding.weight"][1:] += vit.patch_embed.proj.bias
    for number, block in enumerate(vit.blocks):
        prefix = f"encoder.layers.{number}."
        for ours, theirs in _PARTS.items():
            for name, value in block.get_submodule(ours).named_parameters():
                state[f"{prefix}{theirs}.{name}"] = value
        for kind, values in block.get_submodule("attn.qkv").named_parameters():
            for name, third in zip(("q_proj", "k_proj", "v_proj"), values.chunk(3)):
                state[f"{prefix}self_attn.{name}.{kind}"] = third
    return {name: value.detach() for name, value in state.items()}


@torch.no_grad()
def warm_start(encoder: GitVisionTransformer, vit: VisionTransformer, images: Tensor) -> None:
    """Give a `GitVisionTransformer` the weights of a classifier, in place.

    GIT normalises tokens before the first block, the classifier does not: scale and shift of that norm are, channel by
    channel, the least-squares fit that brings the tokens of `images` (B, 3, H, W) back to what they were. The
    classifier's GELU becomes GIT's quick-GELU, which differs by less than 0.021.
    """
    norm = encoder.pre_layrnorm
    state = rename_weights(vit)
    encoder.load_state_dict({**state, "pre_layrnorm.weight": norm.weight, "pre_layrnorm.bias": norm.bias})
    wanted = encoder.embeddings(images).flatten(0, 1)
    given = nn.functional.layer_norm(wanted, norm.normalized_shape, eps=norm.eps)
    centred = given - given.mean(0)
    norm.weight.copy_((centred * wanted).sum(0) / centred.square().sum(0))
    norm.bias.copy_(wanted.mean(0) - norm.weight * given.mean(0))
