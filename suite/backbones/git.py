"""GIT's image encoder as transformers builds it, CLIP's Vision Transformer, and what a text decoder reads of it.

Source: Wang et al., GIT: A Generative Image-to-text Transformer for Vision and Language, TMLR 2022, arXiv 2205.14100.
Releases of transformers differ in what a block takes and returns, and in how their decoder finds the image's tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.git import modeling_git as hf

from suite.backbones.base import BackboneFamily, PartRules
from suite.backbones.mixin import Reduced
from suite.backbones.sharing import with_module, with_values
from suite.backbones.timm_blocks import linear_macs
from suite.errors import RequestError
from suite.reducers.signals import BlockParts
from suite.tokens.layout import Layout
from suite.tokens.soft_matching import log_presence

SUPPORTED = "the image encoder of transformers' GIT is supported (GitForCausalLM, GitModel, GitVisionModel)"


class FusedGitVisionAttention(hf.GitVisionAttention):
    """transformers' attention through `scaled_dot_product_attention`: the same weights, no map in memory.

    fused_attn: False runs the explicit form, whose backward is the faster one on CPUs; the name is timm's.
    """

    fused_attn = True

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *masks: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """(B, N, C) -> (B, N, C), and the map where somebody asks for it: that takes the explicit form."""
        if (
            not self.fused_attn
            or options.get("output_attentions")
            or any(m is not None for m in (attention_mask, *masks))
        ):
            return super().forward(hidden_states, attention_mask, *masks, **options)
        q, k, v = (in_heads(linear(hidden_states), self) for linear in (self.q_proj, self.k_proj, self.v_proj))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=self.scale)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def use_fused_attention(model: nn.Module) -> None:
    """From now on every GIT image encoder within `model` runs fused attention, whatever its release has."""
    for module in model.modules():
        if type(module) is hf.GitVisionAttention:
            module.__class__ = FusedGitVisionAttention


def in_heads(projected: Tensor, attention: nn.Module) -> Tensor:
    """(B, N, H·d) -> (B, H, N, d)."""
    return projected.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)


def masks_wanted() -> int:
    """How many masks a block wants after its tokens; GIT's encoder gives it none of them."""
    wanted = inspect.signature(hf.GitVisionEncoderLayer.forward).parameters.values()
    return sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in wanted) - 2


NO_MASKS = (None,) * masks_wanted()
IN_A_TUPLE = "uple" in str(inspect.signature(hf.GitVisionEncoderLayer.forward).return_annotation)


class GitBlock(BlockParts):
    """transformers' `GitVisionEncoderLayer`: pre-norm, quick-GELU, queries, keys and values of three linear layers."""

    num_class = 1

    def __init__(self, block: hf.GitVisionEncoderLayer, index: int) -> None:
        self.block, self.attention, self.index = block, block.self_attn, index
        self.in_pieces = {"attention": block.self_attn}
        self.scale = block.self_attn.scale
        stock = getattr(block.self_attn.config, "_attn_implementation", None)
        self.fused = getattr(block.self_attn, "fused_attn", stock == "sdpa")

    def original(self, x: Tensor) -> Tensor:
        return self.features(self.block(*self.given(x)))

    def given(self, x: Tensor) -> tuple[Any, ...]:
        return (x, *NO_MASKS)

    def returned(self, x: Tensor) -> Any:
        return (x,) if IN_A_TUPLE else x

    def features(self, returned: Any) -> Tensor:
        return returned[0] if isinstance(returned, tuple) else returned

    def norm1(self, x: Tensor) -> Tensor:
        return self.block.layer_norm1(x)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *self.queries_keys(x), self.values(x)

    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        attention = self.attention
        return in_heads(attention.q_proj(x), attention), in_heads(attention.k_proj(x), attention)

    def values(self, x: Tensor) -> Tensor:
        return in_heads(self.attention.v_proj(x), self.attention)

    def attention_branch(self, attended: Tensor, normed: Tensor) -> Tensor:
        return self.attention.out_proj(attended.transpose(1, 2).flatten(2))

    def mlp_branch(self, x: Tensor) -> Tensor:
        return self.block.mlp(self.block.layer_norm2(x))

    @property
    def attention_dropout(self) -> float:
        return self.attention.dropout if self.block.training else 0.0


class ReducedGit(Reduced):
    """Mixed into the class of a `GitVisionTransformer` while a reducer is attached to it."""

    post_layernorm: nn.Module

    def forward(self, pixel_values: Tensor | None = None, **asked: object) -> BaseModelOutput | tuple[Tensor]:
        """Images (B, 3, H, W) -> all tokens that are left, normed; the decoder is told how many there are."""
        if pixel_values is None:
            raise ValueError("You have to specify pixel_values")
        refused = [key for key in ("output_hidden_states", "output_attentions") if asked.get(key)]
        refused += ["interpolate_pos_encoding"] if asked.get("interpolate_pos_encoding") else []
        if refused:
            raise RuntimeError(f"{refused[0]} is not possible while a reducer is attached; detach it first")
        x, valid = image_features(self, pixel_values)
        if self._reducerbench.decoder is not None:
            self._reducerbench.decoder.tell(x.shape[1] if valid is None else None)
        return (x,) if asked.get("return_dict") is False else BaseModelOutput(last_hidden_state=x)


def image_features(vision: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """(B, N, C) what a decoder reads of images (B, 3, H, W), through whatever reducer is attached to `vision`.

    And (B, N) bool, False on what is no token: padding of images with fewer than others, and what was pruned softly;
    None where there is none.
    """
    handle = getattr(vision, "_reducerbench", None)
    if handle is None:
        return vision(images).last_hidden_state, None
    tokens = handle.encode(vision, images)
    return cast(ReducedGit, vision).post_layernorm(tokens.x), None if tokens.presence is None else tokens.presence > 0


def features_to_learn(vision: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """`image_features`, and (B, N) what a decoder adds in training to the logits of attention on them; None: nothing.

    After soft merging all tokens are there, and without this a decoder would read what is merged away (`log_presence`).
    """
    x, _ = image_features(vision, images)
    handle = getattr(vision, "_reducerbench", None)
    return x, None if handle is None else log_presence(handle.tokens)


def next_word_logits(git: hf.GitForCausalLM, features: Tensor, words: Tensor, bias: Tensor | None = None) -> Tensor:
    """Logits (B, T, V) of the word after each of several packed captions, `words` (B, T), of an image (B, N, C).

    As transformers computes them for each caption by itself: image tokens see the image, words see the image and the
    earlier words of their own caption, and positions count from its start. bias: (B, N), added to the logits of
    attention on image tokens.
    """
    index, starts = torch.arange(words.shape[1], device=words.device), words.eq(cast(int, git.config.bos_token_id))
    caption = starts.cumsum(1)
    place = index - (index * starts).cummax(1).values
    image = git.git.visual_projection(features)
    tokens = torch.cat([image, git.git.embeddings(words, position_ids=place)], dim=1)
    seen = torch.zeros(len(tokens), 1, tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=words.device)
    seen[..., : image.shape[1]] = True
    seen[:, 0, image.shape[1] :, image.shape[1] :] = (caption[:, :, None] == caption[:, None]).tril()
    closed = torch.finfo(torch.bfloat16).min
    mask = torch.zeros(seen.shape, dtype=torch.bfloat16, device=words.device).masked_fill_(~seen, closed)
    if bias is not None:
        mask = mask + F.pad(bias, (0, words.shape[1]))[:, None, None]
    hidden = git.git.encoder(tokens, attention_mask=mask).last_hidden_state
    return git.output(hidden[:, image.shape[1] :])


class UnevenImages(hf.GitSelfAttention):
    """Attention of a decoder that would read padding: it refuses to run."""

    def forward(self, *_: object, **__: object) -> None:
        raise RuntimeError(
            "the images are left with different numbers of tokens, and GIT's decoder would read the padding; "
            "give it one image at a time, or use a Captioner"
        )


class ImageTokens:
    """How many image tokens a GIT decoder expects: `image_patch_tokens` of its attention layers.

    transformers sets it once, from the image size. Some releases split the cache by it, others widen the mask of padded
    prompts by it; with fewer tokens than that, captions change without a word.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [module for module in model.modules() if isinstance(module, hf.GitSelfAttention)]
        self.layers: list[Any] = layers  # whose class changes
        self.remember()

    def remember(self) -> None:
        self.before = [(type(layer), layer.image_patch_tokens) for layer in self.layers]

    def tell(self, count: int | None) -> None:
        """None: the images of the batch differ in it."""
        for layer in self.layers:
            if count is None:
                layer.__class__ = UnevenImages
                continue
            if type(layer) is UnevenImages:
                layer.__class__ = hf.GitSelfAttention  # type: ignore[assignment]  # a class is no constant here
            layer.image_patch_tokens = count

    def restore(self) -> None:
        for layer, (kind, count) in zip(self.layers, self.before):
            layer.__class__, layer.image_patch_tokens = kind, count


def vision_of(model: nn.Module) -> nn.Module:
    """The `GitVisionTransformer` of one of transformers' GIT models; any other module itself."""
    for cls, name in ((hf.GitForCausalLM, "git"), (hf.GitModel, "image_encoder"), (hf.GitVisionModel, "vision_model")):
        model = getattr(model, name) if isinstance(model, cls) else model
    return model


def _layers(vision: hf.GitVisionTransformer) -> Sequence[hf.GitVisionEncoderLayer]:
    return cast(Sequence[hf.GitVisionEncoderLayer], vision.encoder.layers)


class GitViT(BackboneFamily[hf.GitVisionTransformer]):
    """The family: where a `GitVisionTransformer` keeps what `attach` needs."""

    mixin = ReducedGit
    part_rules = PartRules(
        patch_embed=r"embeddings(\.|$)",
        block=r"encoder\.layers\.(\d+)(\.|$)",
        mlp=r"encoder\.layers\.\d+\.mlp(\.|$)",
    )

    def check(self, model: nn.Module) -> None:
        kind = type(model).__name__
        if isinstance(model, ReducedGit):
            raise RequestError("the model has a reducer attached; detach it first")
        if not isinstance(model, hf.GitVisionTransformer):
            raise RequestError(f"model {kind!r} is not supported; {SUPPORTED}")
        if type(model).forward is not hf.GitVisionTransformer.forward:
            raise RequestError(f"model {kind!r} has a forward of its own; {SUPPORTED}")
        for block in model.encoder.layers:
            attention = getattr(block, "self_attn", None)
            known = type(attention) in (hf.GitVisionAttention, FusedGitVisionAttention)
            if type(block) is not hf.GitVisionEncoderLayer or not known:
                odd = block if type(block) is not hf.GitVisionEncoderLayer else attention
                raise RequestError(f"model {kind!r} has {type(odd).__name__} in its blocks; {SUPPORTED}")

    def backbone(self, whole: nn.Module) -> nn.Module:
        return vision_of(whole)

    def decoder(self, whole: nn.Module) -> ImageTokens | None:
        """What `whole` has that reads the encoder's tokens. RequestError for models of several frames."""
        frames = getattr(getattr(whole, "config", None), "num_image_with_embedding", None)
        if frames is not None:
            raise RequestError(
                f"a GIT model of {frames} frames a video is not supported; use one of single images (git_base_coco)"
            )
        tokens = ImageTokens(whole)
        return tokens if tokens.layers else None

    def checkpoints(self, model: hf.GitVisionTransformer) -> bool:
        asked = any(getattr(m, "gradient_checkpointing", False) for m in (model.encoder, *model.encoder.layers))
        return asked and model.training

    def embed(self, model: hf.GitVisionTransformer, x: Tensor) -> Tensor:
        return model.pre_layrnorm(model.embeddings(x))

    def at_size(self, model: hf.GitVisionTransformer, size: tuple[int, int]) -> hf.GitVisionTransformer:
        """As transformers embeds with `interpolate_pos_encoding`; RequestError for a release that does not."""
        embeddings = model.embeddings
        if "interpolate_pos_encoding" not in inspect.signature(embeddings.forward).parameters:
            raise RequestError("this release of transformers embeds GIT's images of one size alone; take a later one")
        forward = partial(embeddings.forward, interpolate_pos_encoding=True)
        return with_module(model, "embeddings", with_values(embeddings, forward=forward))

    def blocks(self, model: hf.GitVisionTransformer) -> list[BlockParts]:
        return [GitBlock(block, index) for index, block in enumerate(_layers(model))]

    def image_size(self, model: hf.GitVisionTransformer) -> tuple[int, int]:
        side = cast(int, model.embeddings.image_size)
        return side, side

    def grid(self, model: hf.GitVisionTransformer, size: tuple[int, int]) -> tuple[int, int]:
        patch = cast(int, model.embeddings.patch_size)
        return size[0] // patch, size[1] // patch

    def layout(self, model: hf.GitVisionTransformer, image_size: tuple[int, int] | None = None) -> Layout:
        """The shape at the model's own image size, the only one that it takes."""
        rows, columns = self.grid(model, image_size or self.image_size(model))
        attention, mlp = _layers(model)[0].self_attn, _layers(model)[0].mlp
        width, layers = attention.embed_dim, [linear_macs(getattr(attention, f"{part}_proj")) for part in "qkv"]
        return Layout(
            depth=len(model.encoder.layers),
            num_prefix=1,
            num_class=1,
            num_patches=rows * columns,
            width=width,
            heads=attention.num_heads,
            head_dim=attention.head_dim,
            qkv_macs=sum(layers),
            apart_macs=(layers[0] + layers[1], layers[2]),
            proj_macs=linear_macs(attention.out_proj),
            mlp_macs=linear_macs(mlp),
            patch_macs=rows * columns * width * model.config.num_channels * cast(int, model.embeddings.patch_size) ** 2,
            head_macs=0,
            grid=(rows, columns),
        )
