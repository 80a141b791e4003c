"""timm's Eva: EVA, EVA-02, DINOv3, Perception Encoder and Vision Transformers with rotary position embedding.

Sources: Fang et al., arXiv 2211.07636 and 2303.11331; Siméoni et al., DINOv3, arXiv 2508.10104; Bolya et al., arXiv
2504.13181; Heo et al., arXiv 2403.13298. What merged and pruned tokens are rotated by says `suite.tokens.places`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import AttentionRope, apply_rot_embed_cat
from timm.models import eva
from torch import Tensor, nn

from suite.backbones.rotated import RotatedParts
from suite.backbones.sharing import with_values
from suite.backbones.timm_blocks import TimmBlock, TimmPostNormBlock
from suite.backbones.timm_sizes import placed
from suite.backbones.timm_vit import ReducedViT, TimmViT
from suite.tokens.places import Places


class BiasedBlock(TimmBlock):
    """A block whose queries, keys and values are of one product with biases beside it, or of three layers.

    Branches are scaled by `gamma_1` and `gamma_2` where there are such.
    """

    @property
    def qkv_linear(self) -> nn.Linear | None:
        attention = self.attention
        biased = getattr(attention, "q_bias", None) is not None
        return None if attention.qkv is None or biased else super().qkv_linear

    @property
    def cuts_rows(self) -> bool:
        return getattr(self.attention, "q_bias", None) is not None or super().cuts_rows

    @property
    def head_dim(self) -> int:
        linear = self.attention.qkv
        width = self.attention.q_proj.out_features if linear is None else linear.out_features // 3
        return width // self.heads

    @property
    def qkv_layers(self) -> list[nn.Module]:
        attention = self.attention
        return [attention.q_proj, attention.k_proj, attention.v_proj] if attention.qkv is None else [attention.qkv]

    def heads_of(self, x: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
        if self.attention.qkv is not None:
            return super().heads_of(x, first, last)
        return tuple(self._in_all_heads(layer(x)) for layer in self.qkv_layers[first:last])

    def _in_all_heads(self, projected: Tensor) -> Tensor:
        """(B, N, K·d) -> (B, H, N, d): where keys and values have fewer heads K, several of queries share one."""
        heads = projected.unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        return heads if heads.shape[1] == self.heads else heads.repeat_interleave(self.heads // heads.shape[1], dim=1)

    def rows_of_qkv(self, x: Tensor, first: int, last: int) -> Tensor:
        """Of the weight alone where biases stand beside it: so timm does it, whatever is put on the layer."""
        attention = self.attention
        if getattr(attention, "q_bias", None) is None:
            return super().rows_of_qkv(x, first, last)
        third = self.heads * self.head_dim
        bias = torch.cat((attention.q_bias, attention.k_bias, attention.v_bias)[first:last])
        return F.linear(x, attention.qkv.weight[first * third : last * third], bias)

    def attention_branch(self, attended: Tensor, normed: Tensor) -> Tensor:
        return self.block.drop_path1(_scaled(self.attention_output(attended, normed), self.block.gamma_1))

    def mlp_branch(self, x: Tensor) -> Tensor:
        block = self.block
        return block.drop_path2(_scaled(block.mlp(block.norm2(x)), block.gamma_2))


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x


class RotaryBlock(RotatedParts, BiasedBlock):
    """timm's `EvaBlock`, with `EvaAttention` or `AttentionRope`."""

    def original(self, x: Tensor) -> Tensor:
        return self.block(*self.given(x))

    def given(self, x: Tensor) -> tuple[Any, ...]:
        return (x,) if self.rotations is None else (x, self.rotations)

    def prepared(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        dtype = q.dtype  # of the values
        q, k = super().prepared(q, k)
        if self.rotations is None:
            return q, k
        prefix, half = self.attention.num_prefix_tokens, getattr(self.attention, "rotate_half", False)
        q, k = (rotated(x, self.rotations, prefix, half).to(dtype) for x in (q, k))
        return q, k


def rotated(x: Tensor, rotations: Tensor, prefix: int, half: bool) -> Tensor:
    """Queries or keys (B, H, N, d), all but the first `prefix` rotated: pairs of neighbours, or of two halves."""
    return torch.cat([x[:, :, :prefix], apply_rot_embed_cat(x[:, :, prefix:], rotations, half=half)], dim=2)


class RotaryPostNormBlock(RotaryBlock):
    """timm's `EvaBlockPostNorm`: each branch is normed after it is computed."""

    norm1 = TimmPostNormBlock.norm1
    attention_branch = TimmPostNormBlock.attention_branch
    mlp_branch = TimmPostNormBlock.mlp_branch


class ReducedEva(ReducedViT):
    """Mixed into the class of an `Eva` while a reducer is attached to it."""

    pool_attends_to_prefix = True


class TimmEva(TimmViT):
    """The family: where an `Eva` keeps what `attach` needs."""

    mixin = ReducedEva
    base = eva.Eva
    parts: Mapping[type[nn.Module], type[TimmBlock]] = {
        eva.EvaBlock: RotaryBlock,
        eva.EvaBlockPostNorm: RotaryPostNormBlock,
    }
    attentions = (eva.EvaAttention, AttentionRope)

    def embed(self, model: Any, x: Tensor) -> Tensor:
        return self.start(model, x)[0]

    def start(self, model: Any, x: Tensor) -> tuple[Tensor, Places | None]:
        x, rotations = model._pos_embed(model.patch_embed(x))
        places = None if rotations is None else Places(rotations, getattr(model, "rope_mixed", False))
        return model.norm_pre(x), places

    def at_size(self, model: Any, size: tuple[int, int]) -> Any:
        twin = placed(model, size)
        rope = getattr(model, "rope", None)
        if rope is not None:
            twin._modules["rope"] = _rope_of(rope, self.grid(model, size))
        return twin


def _rope_of(rope: Any, grid: tuple[int, int]) -> Any:
    """A copy of timm's rotary position embedding for another grid, its weights shared."""
    if getattr(rope, "feat_shape", None) is None:  # of a model of all sizes, which is told it in every forward
        return with_values(rope, get_embed=partial(rope.get_embed, shape=grid))
    twin = with_values(rope, _buffers={**rope._buffers})
    twin.update_feat_shape(grid)
    return twin
