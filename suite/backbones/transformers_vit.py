"""transformers' Vision Transformers: ViT, DINOv2, DINOv3, SigLIP's and CLIP's vision towers.

Their blocks differ in names alone, which `NAMES` lists; their models in what goes before the first block and behind
the last. Releases of transformers that name the parts in another way are refused.
"""

from __future__ import annotations

import inspect
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from suite.backbones.base import BackboneFamily, PartRules
from suite.backbones.mixin import Reduced
from suite.backbones.rotated import RotatedParts
from suite.backbones.sharing import with_module, with_values
from suite.backbones.timm_blocks import linear_macs
from suite.backbones.timm_eva import rotated
from suite.errors import RequestError
from suite.tokens.attention_bias import floored_log
from suite.tokens.layout import Layout
from suite.tokens.places import Places

SUPPORTED = (
    "transformers' ViTModel, Dinov2Model, DINOv3ViTModel, SiglipVisionModel and CLIPVisionModel are supported, "
    "as releases from 5 on build them"
)
NAMES = {
    "attention": ("attention", "self_attn"),
    "norm1": ("layernorm_before", "norm1", "layer_norm1"),
    "norm2": ("layernorm_after", "norm2", "layer_norm2"),
    "projection": ("o_proj", "out_proj"),
    "heads": ("num_attention_heads", "num_heads"),
    "scale": ("scaling", "scale"),
    "dropout": ("attention_dropout", "dropout"),
    "layers": ("layers", "layer"),
}


def named(module: Any, part: str) -> Any:
    """The part of a module by whichever of its `NAMES` it has. AttributeError without."""
    found = next((name for name in NAMES[part] if hasattr(module, name)), None)
    if found is None:
        raise AttributeError(f"{type(module).__name__} has no {part}")
    return getattr(module, found)


class TransformersBlock(RotatedParts):
    """A pre-norm block: queries, keys and values of three linear layers, LayerScale and drop-path where present."""

    def __init__(self, block: Any, index: int, num_class: int, num_prefix: int) -> None:
        self.block, self.index, self.num_class, self.num_prefix = block, index, num_class, num_prefix
        self.attention = attention = named(block, "attention")
        self.in_pieces = {"attention": attention}
        self.scale, self.heads = named(attention, "scale"), named(attention, "heads")
        self.fused = getattr(attention.config, "_attn_implementation", None) == "sdpa"

    def given(self, x: Tensor) -> tuple[Any, ...]:
        if self.rotations is None:
            return x, None
        sine, cosine = self.rotations.chunk(2, dim=-1)
        return x, None, (cosine, sine)

    def original(self, x: Tensor) -> Tensor:
        return self.features(self.block(*self.given(x)))

    def features(self, returned: Any) -> Tensor:
        return returned[0] if isinstance(returned, tuple) else returned

    def norm1(self, x: Tensor) -> Tensor:
        return named(self.block, "norm1")(x)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *self.queries_keys(x), self.values(x)

    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k = self._heads(self.attention.q_proj(x)), self._heads(self.attention.k_proj(x))
        if self.rotations is not None:
            q, k = (rotated(part, self.rotations, self.num_prefix, half=True) for part in (q, k))
        return q, k

    def values(self, x: Tensor) -> Tensor:
        return self._heads(self.attention.v_proj(x))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @property
    def qkv_layers(self) -> list[nn.Module]:
        return [self.attention.q_proj, self.attention.k_proj, self.attention.v_proj]

    def attention_branch(self, attended: Tensor, normed: Tensor) -> Tensor:
        return self._added(named(self.attention, "projection")(attended.transpose(1, 2).flatten(2)), "layer_scale1")

    def mlp_branch(self, x: Tensor) -> Tensor:
        return self._added(self.block.mlp(named(self.block, "norm2")(x)), "layer_scale2")

    def _added(self, x: Tensor, scale: str) -> Tensor:
        for name in (scale, "drop_path", "dropout"):
            x = getattr(self.block, name, nn.Identity())(x)
        return x

    @property
    def attention_dropout(self) -> float:
        return named(self.attention, "dropout") if self.attention.training else 0.0


class ReducedTransformers(Reduced):
    """Mixed into the class of a vision model of transformers while a reducer is attached to it."""

    def forward(self, pixel_values: Tensor, **asked: object) -> Any:
        """Images (B, 3, H, W) -> all tokens that are left, and what is pooled of them."""
        refused = [key for key, value in asked.items() if value and key != "return_dict"]
        if refused:
            raise RuntimeError(f"{refused[0]} is not possible while a reducer is attached; detach it first")
        handle: Any = self._reducerbench
        tokens = handle.encode(self, pixel_values)
        weight = tokens.size if handle.reducer.weighted_pooling else None
        if tokens.presence is not None:
            weight = tokens.presence * (1 if weight is None else weight)
        x, pooled = handle.family.outputs(self, tokens.x, weight)
        return (x, pooled) if asked.get("return_dict") is False else BaseModelOutputWithPooling(x, pooled)


class TransformersViT(BackboneFamily[Any]):
    """What these families share. name: of the model's class. layers: where its blocks are. num_class: class tokens."""

    mixin = ReducedTransformers
    name: str
    layers: str
    num_class = 1

    @property
    def part_rules(self) -> PartRules:  # type: ignore[override]
        block = self.layers.replace(".", r"\.") + r"\.(\d+)"
        return PartRules(r"embeddings(\.|$)", rf"{block}(\.|$)", rf"{block}\.mlp(\.|$)".replace(r"(\d+)", r"\d+"))

    def check(self, model: nn.Module) -> None:
        kind = type(model).__name__
        if isinstance(model, ReducedTransformers):
            raise RequestError("the model has a reducer attached; detach it first")
        own: Any = next((cls for cls in type(model).__mro__ if cls.__name__ == self.name), None)
        if own is None:
            raise RequestError(f"model {kind!r} is not supported; {SUPPORTED}")
        if type(model).forward is not own.forward:
            raise RequestError(f"model {kind!r} has a forward of its own; {SUPPORTED}")
        try:
            for parts in self.blocks(model):
                named(parts.block, "norm1"), named(parts.block, "norm2"), named(parts.attention, "projection")
                if not all(isinstance(layer, nn.Linear) for layer in parts.qkv_layers):
                    raise AttributeError("queries, keys and values are not of linear layers")
        except AttributeError as error:
            raise RequestError(f"model {kind!r} is not built as expected ({error}); {SUPPORTED}") from error

    def checkpoints(self, model: Any) -> bool:
        modules = [model, *attrgetter(self.layers)(model)]
        return model.training and any(getattr(module, "gradient_checkpointing", False) for module in modules)

    def embed(self, model: Any, x: Tensor) -> Tensor:
        return model.embeddings(x.to(self.projection(model).weight.dtype))

    def blocks(self, model: Any) -> list[Any]:
        blocks = attrgetter(self.layers)(model)
        return [TransformersBlock(block, i, self.num_class, self.num_prefix(model)) for i, block in enumerate(blocks)]

    def num_prefix(self, model: Any) -> int:
        return self.num_class + (getattr(model.config, "num_register_tokens", None) or 0)

    def projection(self, model: Any) -> nn.Conv2d:
        """What makes patches of an image."""
        return next(module for module in model.embeddings.modules() if isinstance(module, nn.Conv2d))

    def image_size(self, model: Any) -> tuple[int, int]:
        height, width = _pair(model.config.image_size)
        return height, width

    def grid(self, model: Any, size: tuple[int, int]) -> tuple[int, int]:
        height, width = _pair(model.config.patch_size)
        return size[0] // height, size[1] // width

    def at_size(self, model: Any, size: tuple[int, int]) -> Any:
        """As transformers embeds with `interpolate_pos_encoding`, where a model has to be asked for it."""
        forward = model.embeddings.forward
        if "interpolate_pos_encoding" not in inspect.signature(forward).parameters:
            return model
        asked = with_values(model.embeddings, forward=partial(forward, interpolate_pos_encoding=True))
        return with_module(model, "embeddings", asked)

    def outputs(self, model: Any, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, N, C) behind the last block, weights (B, N) if any -> (last_hidden_state, pooler_output)."""
        raise NotImplementedError

    def head_macs(self, model: Any) -> tuple[int, int]:
        """Multiply-accumulates of what is pooled: per token, and per image."""
        return 0, 0

    def layout(self, model: Any, image_size: tuple[int, int] | None = None) -> Layout:
        rows, columns = self.grid(model, image_size or self.image_size(model))
        parts = self.blocks(model)[0]
        q, k, v = (linear_macs(layer) for layer in parts.qkv_layers)
        head_token, head = self.head_macs(model)
        return Layout(
            depth=len(attrgetter(self.layers)(model)),
            num_prefix=self.num_prefix(model),
            num_class=self.num_class,
            num_patches=rows * columns,
            width=model.config.hidden_size,
            heads=parts.heads,
            head_dim=parts.attention.head_dim,
            qkv_macs=q + k + v,
            apart_macs=(q + k, v),
            proj_macs=linear_macs(named(parts.attention, "projection")),
            mlp_macs=linear_macs(parts.block.mlp),
            patch_macs=rows * columns * self.projection(model).weight.numel(),
            head_macs=head,
            head_token_macs=head_token,
            grid=(rows, columns),
        )


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class TransformersPlain(TransformersViT):
    """`ViTModel`."""

    name, layers = "ViTModel", "layers"

    def outputs(self, model: Any, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = model.layernorm(x)
        return x, None if model.pooler is None else model.pooler(x)

    def head_macs(self, model: Any) -> tuple[int, int]:
        return 0, 0 if model.pooler is None else linear_macs(model.pooler)


class TransformersDinov2(TransformersViT):
    """`Dinov2Model`."""

    name, layers = "Dinov2Model", "encoder.layer"

    def outputs(self, model: Any, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = model.layernorm(x)
        return x, x[:, 0]


class TransformersDinov3(TransformersViT):
    """`DINOv3ViTModel`: class token, registers, and rotary position embedding."""

    name, layers = "DINOv3ViTModel", "model.layer"

    def start(self, model: Any, x: Tensor) -> tuple[Tensor, Places | None]:
        cosine, sine = model.rope_embeddings(x.to(self.projection(model).weight.dtype))
        return self.embed(model, x), Places(torch.cat([sine, cosine], dim=-1))

    def outputs(self, model: Any, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = model.norm(x)
        return x, x[:, 0]


class TransformersCLIP(TransformersViT):
    """`CLIPVisionModel`, whose tokens are given out without the last norm."""

    name, layers = "CLIPVisionModel", "encoder.layers"

    def embed(self, model: Any, x: Tensor) -> Tensor:
        return model.pre_layrnorm(super().embed(model, x))

    def outputs(self, model: Any, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return x, model.post_layernorm(x[:, 0])


class TransformersSiglip(TransformersViT):
    """`SiglipVisionModel`: no class token; its head pools by attention, to whose logits log sizes are added."""

    name, layers, num_class = "SiglipVisionModel", "encoder.layers", 0

    def outputs(self, model: Any, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = model.post_layernorm(x)
        if not model.use_head or weight is None:
            return x, model.head(x) if model.use_head else None
        head, heads = model.head, model.head.attention.num_heads
        sizes = floored_log(weight).to(x.dtype)[:, None, None].expand(-1, heads, -1, -1).flatten(0, 1)
        pooled = head.attention(head.probe.expand(len(x), -1, -1), x, x, attn_mask=sizes)[0]
        return x, (pooled + head.mlp(head.layernorm(pooled)))[:, 0]

    def head_macs(self, model: Any) -> tuple[int, int]:
        if not model.use_head:
            return 0, 0
        width = model.config.hidden_size
        return 2 * width * width + 2 * width, 2 * width * width + linear_macs(model.head.mlp)
