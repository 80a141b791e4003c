"""The blocks of timm's Vision Transformers, part by part."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suite.backbones.modules import call_as, is_plain
from suite.errors import RequestError
from suite.reducers.signals import BlockParts


class TimmBlock(BlockParts):
    """timm's `Block` with its `Attention`: LayerScale, drop-path, q/k norm, gate and attention norm where present."""

    def __init__(self, block: Any, index: int, num_class: int) -> None:
        self.block, self.index, self.num_class = block, index, num_class  # timm builds its parts by name: no types
        self.attention: Any = block.attn
        self.scale, self.fused = self.attention.scale, bool(self.attention.fused_attn)

    @property
    def heads(self) -> int:
        return self.attention.num_heads

    @property
    def head_dim(self) -> int:
        return self.attention.head_dim

    @property
    def macs(self) -> tuple[int, int, int]:
        """Multiply-accumulates of a token in the qkv product, in the output projection with its gate, in the MLP."""
        gate: nn.Module | None = getattr(self.attention, "gate", None)
        out = linear_macs(self.attention.proj) + (0 if gate is None else linear_macs(gate))
        return sum(map(linear_macs, self.qkv_layers)), out, linear_macs(self.block.mlp)

    @property
    def apart_macs(self) -> tuple[int, int] | None:
        """`Layout.apart_macs`."""
        layers = [linear_macs(layer) for layer in self.qkv_layers]
        if len(layers) == 3:
            return layers[0] + layers[1], layers[2]
        return None if self.cuts_rows else (layers[0], layers[0])  # cut out of the whole each time

    @property
    def cuts_rows(self) -> bool:
        """Some rows of the qkv product are computed without the others."""
        return is_plain(self.attention.qkv)

    @property
    def qkv_layers(self) -> list[nn.Module]:
        """One layer of queries, keys and values, or three."""
        return [self.attention.qkv]

    def original(self, x: Tensor) -> Tensor:
        return self.block(x)

    def norm1(self, x: Tensor) -> Tensor:
        return self.block.norm1(x)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.heads_of(x, 0, 3)
        return *self.prepared(q, k), v

    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k = self.heads_of(x, 0, 2)
        return self.prepared(q, k)

    def values(self, x: Tensor) -> Tensor:
        return self.heads_of(x, 2, 3)[0]

    def prepared(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys as attention has them, of what the projection gives."""
        return self.attention.q_norm(q), self.attention.k_norm(k)

    def heads_of(self, x: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
        """Of queries, keys and values of normed tokens (B, N, C) those from `first` to before `last`, (B, H, N, d)."""
        return self.in_heads(self.rows_of_qkv(x, first, last), last - first)

    def rows_of_qkv(self, x: Tensor, first: int, last: int) -> Tensor:
        """Thirds `first` to `last` of the qkv product: alone, or out of the whole where the layer must be called."""
        linear = self.qkv_linear
        if linear is None or last - first == 3:
            third = self.heads * self.head_dim
            return self.attention.qkv(x)[..., first * third : last * third]
        third = linear.out_features // 3
        bias = None if linear.bias is None else linear.bias[first * third : last * third]
        return F.linear(x, linear.weight[first * third : last * third], bias)

    @property
    def qkv_linear(self) -> nn.Linear | None:
        return self.attention.qkv if is_plain(self.attention.qkv) else None

    def split_heads(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.in_heads(projected, 3)
        return *self.prepared(q, k), v

    def in_heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts·H·d) -> `parts` tensors (B, H, N, d)."""
        batch, count, _ = projected.shape
        heads = projected.reshape(batch, count, parts, self.heads, self.head_dim)
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


class TimmParallelBlock(TimmBlock):
    """timm's `ParallelScalingBlock`: attention and MLP read the same normed tokens (ViT-22B, arXiv 2302.05442).

    Both are added at once, so the MLP runs on all tokens that attention runs on, before any is taken out behind it.
    """

    parallel = True

    def __init__(self, block: Any, index: int, num_class: int) -> None:
        self.block, self.attention, self.index, self.num_class = block, block, index, num_class
        self.scale, self.fused = block.scale, bool(block.fused_attn)

    @property
    def qkv_layers(self) -> list[nn.Module]:
        """One of queries, keys and values, and of what enters the MLP's activation."""
        return [self.block.in_proj]

    @property
    def cuts_rows(self) -> bool:
        return is_plain(self.block.in_proj)

    @property
    def apart_macs(self) -> tuple[int, int] | None:
        return None if self.cuts_rows else (self.macs[0], self.macs[0])

    @property
    def macs(self) -> tuple[int, int, int]:
        block, width = self.block, self.heads * self.head_dim
        hidden = block.in_split[0]
        return 3 * width * width, width * width, 2 * hidden * width

    def norm1(self, x: Tensor) -> Tensor:
        return self.block.in_norm(x)

    def rows_of_qkv(self, x: Tensor, first: int, last: int) -> Tensor:
        hidden, width = self.block.in_split[:2]
        rows = slice(hidden + first * width, hidden + last * width)
        linear = self.block.in_proj
        if not is_plain(linear):
            return linear(x)[..., rows]
        return F.linear(x, linear.weight[rows], None if linear.bias is None else linear.bias[rows])

    @property
    def qkv_linear(self) -> nn.Linear | None:
        return None

    def attention_branch(self, attended: Tensor, normed: Tensor) -> Tensor:
        block, hidden = self.block, self._hidden(normed)
        x = attended.transpose(1, 2).flatten(2)
        if block.out_proj is not None:
            return block.drop_path(block.ls(block.out_proj(torch.cat((x, hidden), dim=-1))))
        return block.drop_path(block.ls(block.attn_out_proj(x) + block.mlp_out_proj(hidden)))

    def _hidden(self, normed: Tensor) -> Tensor:
        """What the MLP's second layer reads."""
        block, linear = self.block, self.block.in_proj
        count = block.in_split[0]
        if is_plain(linear):
            bias = None if linear.bias is None else linear.bias[:count]
            x = F.linear(normed, linear.weight[:count], bias)
        else:
            x = linear(normed)[..., :count]
        return block.mlp_drop(block.mlp_act(x if block.mlp_bias is None else x + block.mlp_bias))

    def mlp_branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError("it is computed beside attention")


def linear_macs(module: nn.Module) -> int:
    """Multiply-accumulates of all linear layers below `module`, for one token."""
    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))
