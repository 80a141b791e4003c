"""The one reducible forward of a pre-norm transformer block, written once for every backbone family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.reducers.base import Reducer
from suite.tokens import Tokens


@dataclass(frozen=True)
class Layout:
    """A backbone's shape, as schedules and the closed form of its cost see it.

    `num_prefix` tokens are protected; the first `num_class` of them are read by a head (class, distillation).

    Cost in multiply-accumulates: `qkv_macs`, `proj_macs`, `mlp_macs` per token and block; `patch_macs` and `head_macs`
    per image; `head_token_macs` per token that reaches the head (attention pooling; 0 elsewhere).
    """

    depth: int
    num_prefix: int
    num_class: int
    num_patches: int
    width: int
    heads: int
    head_dim: int
    qkv_macs: int
    proj_macs: int
    mlp_macs: int
    patch_macs: int
    head_macs: int
    head_token_macs: int = 0

    @property
    def tokens(self) -> int:
        """N0: tokens that enter the first block, prefix included."""
        return self.num_prefix + self.num_patches


class BlockTrace(NamedTuple):
    """Tokens that enter a block, that its attention runs on, and that leave it (its MLP's)."""

    entering: int
    attended: int
    leaving: int


class BlockParts(ABC):
    """Where the pieces of one block are; what a backbone family has to say about it."""

    index: int
    scale: float
    fused: bool  # attention through scaled_dot_product_attention, as the original block does
    num_class: int  # leading tokens that a head reads: class, and distillation where there is one

    @abstractmethod
    def original(self, x: Tensor) -> Tensor:
        """The untouched block, (B, N, C) -> (B, N, C)."""

    @abstractmethod
    def norm1(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normed tokens (B, N, C) -> queries, keys, values, each (B, H, N, d), after q/k norm where there is one."""

    @abstractmethod
    def attention_branch(self, attended: Tensor, normed: Tensor) -> Tensor:
        """Heads (B, H, N, d) -> what is added to the residual stream (B, N, C); `normed` for gated attention."""

    @abstractmethod
    def mlp_branch(self, x: Tensor) -> Tensor:
        """Residual stream (B, N, C) -> what the MLP adds to it, second norm included."""

    @property
    def attention_dropout(self) -> float:
        return 0.0


class lazy:
    """A property computed when it is first asked for. `functools.cached_property` takes a lock on Python 3.11, at which
    `torch.compile` breaks the graph; signals belong to one forward, so no lock is needed."""

    def __init__(self, compute: Callable[[Signals], Any]) -> None:
        self.compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, signals: Signals | None, owner: type | None = None) -> Any:
        if signals is None:
            return self
        value = signals.__dict__[self.name] = self.compute(signals)
        return value


class Signals:
    """What a block can tell a reducer about the tokens it attends to; each is computed when it is first asked for.

    Signals describe the tokens before attention: positions agree with the tokens that the hook receives.
    """

    def __init__(self, parts: BlockParts, tokens: Tokens, depth: int, bias: Tensor | None = None) -> None:
        self._parts, self._tokens, self._bias = parts, tokens, bias
        self.block, self.depth = parts.index, depth

    @lazy
    def normed(self) -> Tensor:
        """(B, N, C) the block's first norm of the residual stream: what queries, keys and values are made of."""
        return self._parts.norm1(self._tokens.x)

    @lazy
    def heads(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, each (B, H, N, d)."""
        return self._parts.qkv(self.normed)

    @property
    def keys(self) -> Tensor:
        """(B, N, d) keys averaged over heads, after k-norm where the model has one (ToMe's metric)."""
        return self.heads[1].mean(1)

    @lazy
    def class_attention(self) -> Tensor:
        """(B, N) float32 softmax attention that the class token pays, averaged over heads.

        One extra query row, not the whole map; a distilled model's two rows are averaged. Raises ValueError for a
        model without a class token.
        """
        queries, keys, _ = self.heads
        rows = self._parts.num_class
        if rows == 0:
            raise ValueError(
                "this model has no class token, so there is no class attention to select by; use a method without it"
            )
        logits = (queries[:, :, :rows] * self._parts.scale) @ keys.transpose(-2, -1)
        if self._bias is not None:
            logits = logits + self._bias
        return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)).mean(dim=(1, 2))

    @lazy
    def attention_map(self) -> Tensor:
        """(B, H, N, N) softmax attention. Asked for before attention runs, it is the map that attention uses."""
        queries, keys, _ = self.heads
        logits = (queries * self._parts.scale) @ keys.transpose(-2, -1)
        return (logits if self._bias is None else logits + self._bias).softmax(dim=-1)

    def attend(self) -> Tensor:
        """(B, H, N, d) attention output; by the fused kernel unless the map was asked for or the model is not fused."""
        parts, (queries, keys, values) = self._parts, self.heads
        if parts.fused and "attention_map" not in self.__dict__:
            return F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=self._bias,
                dropout_p=parts.attention_dropout,
                scale=parts.scale,
            )
        return F.dropout(self.attention_map, parts.attention_dropout) @ values


def reducible_block(
    parts: BlockParts, tokens: Tokens, reducer: Reducer, amount: int, depth: int
) -> tuple[Tokens, BlockTrace]:
    """One block on `tokens`, with `amount` tokens taken out by `reducer` (0: its hook is not called).

    While nothing was merged and nothing is asked for, this is the original block: the same kernels on the same
    values, so that zero reduction is the unmodified model bit for bit.
    """
    entering = tokens.count
    if amount and reducer.site == "before_block":
        tokens = reducer("before_block", tokens, Signals(parts, tokens, depth), amount)
    attended = tokens.count
    bias = tokens.log_size if reducer.proportional_attention else None
    if bias is None and not (amount and reducer.site == "after_attention"):
        return tokens.with_features(parts.original(tokens.x)), BlockTrace(entering, attended, attended)
    signals = Signals(parts, tokens, depth, bias)
    tokens = tokens.with_features(tokens.x + parts.attention_branch(signals.attend(), signals.normed))
    if amount and reducer.site == "after_attention":
        tokens = reducer("after_attention", tokens, signals, amount)
    tokens = tokens.with_features(tokens.x + parts.mlp_branch(tokens.x))
    return tokens, BlockTrace(entering, attended, tokens.count)
