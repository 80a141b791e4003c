"""The one reducible forward of a pre-norm transformer block, written once for every backbone family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suite.pooling import Matching, flat_index, group_mean_of, take
from suite.reducers.base import Reducer, SelectedQueries
from suite.tokens import Tokens


@dataclass(frozen=True)
class Layout:
    """A backbone's shape, as schedules and the closed form of its cost see it.

    `num_prefix` tokens are protected; the first `num_class` of them are read by a head (class, distillation). `grid`:
    rows and columns of the patches.

    Cost in multiply-accumulates: `qkv_macs` (a third of it values), `proj_macs` (with a gate, where there is one) and
    `mlp_macs` per token and block; `patch_macs` and `head_macs` per image; `head_token_macs` per token that reaches
    the head (attention pooling; 0 elsewhere).
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
    grid: tuple[int, int] | None = None

    @property
    def tokens(self) -> int:
        """N0: tokens that enter the first block, prefix included."""
        return self.num_prefix + self.num_patches


class BlockTrace(NamedTuple):
    """Tokens that the parts of a block run on, prefix and padding included; the cost of the block follows from them.

    entering: tokens that enter the block. attended: queries and keys are made of them. values: values are. queries:
    rows of the attention map. projected: rows of the output projection. mlp: tokens of the MLP. leaving: of the result.
    """

    entering: int
    attended: int
    values: int
    queries: int
    projected: int
    mlp: int
    leaving: int

    @classmethod
    def plain(cls, attended: int, leaving: int | None = None, entering: int | None = None) -> BlockTrace:
        """An ordinary block: all of `attended` in attention, `leaving` in the MLP."""
        leaving = attended if leaving is None else leaving
        entering = attended if entering is None else entering
        return cls(entering, attended, attended, attended, attended, leaving, leaving)


class Visit(NamedTuple):
    """What one forward is to do in one block.

    amount: tokens that the reducer takes out, 0: it is not called. stage: place of this block among those the rate acts
    in. fused: weight and bias of qkv with the reducer's extra rows below. received: see `Signals.received_before`.
    watch: the next block's reducer wants to know what attention every token received here. proportional: attention is
    biased by log size.
    """

    amount: int
    depth: int
    stage: int | None = None
    fused: tuple[Tensor, Tensor | None] | None = None
    received: Tensor | None = None
    watch: bool = False
    proportional: bool = False


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
    def queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The queries and keys of `qkv` alone."""

    @abstractmethod
    def values(self, x: Tensor) -> Tensor:
        """The values of `qkv` alone, (B, H, N, d)."""

    @property
    def qkv_linear(self) -> nn.Linear | None:
        """The one linear layer that `qkv` consists of, where it is one; see `split_heads`."""
        return None

    def split_heads(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output (B, N, 3·H·d) of `qkv_linear` -> what `qkv` returns."""
        raise NotImplementedError

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

    def __init__(
        self, parts: BlockParts, tokens: Tokens, reducer: Reducer, visit: Visit, bias: Tensor | None = None
    ) -> None:
        self._parts, self._tokens, self._reducer, self._visit, self._bias = parts, tokens, reducer, visit, bias
        self.block, self.depth, self.stage = parts.index, visit.depth, visit.stage

    @lazy
    def normed(self) -> Tensor:
        """(B, N, C) the block's first norm of the residual stream: what queries, keys and values are made of."""
        return self._parts.norm1(self._tokens.x)

    @lazy
    def heads(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, each (B, H, N, d)."""
        if self._visit.fused is None:
            return self._parts.qkv(self.normed)
        width = self._parts.qkv_linear.out_features
        projected = F.linear(self.normed, *self._visit.fused)
        self.__dict__["extra"] = projected[..., width:]
        return self._parts.split_heads(projected[..., :width])

    @lazy
    def queries_keys(self) -> tuple[Tensor, Tensor]:
        """Queries and keys, each (B, H, N, d), without the values unless those are there already."""
        return self.heads[:2] if "heads" in self.__dict__ else self._parts.queries_keys(self.normed)

    @lazy
    def extra(self) -> Tensor:
        """(B, N, D) the reducer's `extra_projection` of `normed`."""
        return F.linear(self.normed, *self._reducer.extra_projection(self.block))

    @property
    def keys(self) -> Tensor:
        """(B, N, d) keys averaged over heads, after k-norm where the model has one (ToMe's metric)."""
        return self.queries_keys[1].mean(1)

    @lazy
    def class_attention(self) -> Tensor:
        """(B, N) float32 softmax attention that the class token pays, averaged over heads.

        One extra query row, not the whole map; a distilled model's two rows are averaged. Raises ValueError for a
        model without a class token.
        """
        return self.class_rows.mean(dim=(1, 2))

    @lazy
    def class_rows(self) -> Tensor:
        """(B, H, R, N) float32 softmax attention of the R = 1 or 2 tokens that a head reads, head by head."""
        queries, keys = self.queries_keys
        rows = self._parts.num_class
        if rows == 0:
            raise ValueError(
                "this model has no class token, so there is no class attention to select by; use a method without it"
            )
        logits = (queries[:, :, :rows] * self._parts.scale) @ keys.transpose(-2, -1)
        if self._bias is not None:
            logits = logits + self._bias
        return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))

    @lazy
    def attention_map(self) -> Tensor:
        """(B, H, N, N) softmax attention. Asked for before attention runs, it is the map that attention uses."""
        return self._softmax(self.queries_keys[0])

    @lazy
    def received(self) -> Tensor:
        """(B, N) float32 attention that every token receives, averaged over heads and queries; sums to 1."""
        dtype = torch.promote_types(self.attention_map.dtype, torch.float32)
        return self.attention_map.sum(dim=2, dtype=dtype).mean(1) / self.attention_map.shape[2]

    @property
    def received_before(self) -> Tensor | None:
        """(B, N) float32 what `received` was in the block before; None in the first block."""
        return self._visit.received

    def attend(self, values: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """(B, H, M, d) attention output; by the fused kernel unless the map was asked for or the model is not fused.

        values: (B, H, N, d) in place of the tokens' own. rows: (B, M) the queries that are answered, default all.
        """
        parts = self._parts
        queries, keys = self.queries_keys
        values = self.heads[2] if values is None else values
        if parts.fused and "attention_map" not in self.__dict__:
            queries = queries if rows is None else queries.take_along_dim(rows[:, None, :, None], 2)
            return F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=self._bias,
                dropout_p=parts.attention_dropout,
                scale=parts.scale,
            )
        if rows is None:
            attention = self.attention_map
        elif "attention_map" in self.__dict__:
            attention = self.attention_map.take_along_dim(rows[:, None, :, None], 2)
        else:
            attention = self._softmax(queries.take_along_dim(rows[:, None, :, None], 2))
        return F.dropout(attention, parts.attention_dropout) @ values

    def _softmax(self, queries: Tensor) -> Tensor:
        """Attention (B, H, M, N) that queries (B, H, M, d) pay to all keys."""
        logits = (queries * self._parts.scale) @ self.queries_keys[1].transpose(-2, -1)
        if self._bias is not None:  # in place where nobody differentiates: a map is large, and a fresh one is slow
            logits = (
                logits + self._bias if logits.requires_grad or self._bias.requires_grad else logits.add_(self._bias)
            )
        return logits.softmax(dim=-1)


def reducible_block(
    parts: BlockParts, tokens: Tokens, reducer: Reducer, visit: Visit
) -> tuple[Tokens, BlockTrace, Tensor | None]:
    """One block on `tokens`: what leaves it, the counts that its cost follows from, and `Signals.received` if watched.

    While nothing was merged and nothing is asked for, this is the original block: the same kernels on the same
    values, so that zero reduction is the unmodified model bit for bit.
    """
    entering, amount = tokens.count, visit.amount
    site = reducer.site if amount else None
    if site == "before_block":
        signals = Signals(parts, tokens, reducer, visit, tokens.attention_bias(visit.proportional))
        tokens = reducer("before_block", tokens, signals, amount)
    bias, attended = tokens.attention_bias(visit.proportional), tokens.count
    if bias is None and site in (None, "before_block") and not visit.watch:
        return tokens.with_features(parts.original(tokens.x)), BlockTrace.plain(attended, entering=entering), None
    signals = Signals(parts, tokens, reducer, visit, bias)
    # the model's own work comes first: what a reducer makes the block compute within its hook is counted as the reducer's
    if not (site == "inside_attention" and reducer.reads_map):
        _ = signals.heads
    if visit.watch or (reducer.reads_map and site not in (None, "before_block")):
        _ = signals.attention_map
    if site == "inside_attention":
        tokens, trace = _attention_with(parts, tokens, signals, reducer, amount)
    else:
        tokens = tokens.with_features(tokens.x + parts.attention_branch(signals.attend(), signals.normed))
        trace = BlockTrace.plain(attended)
    if site == "after_attention":
        tokens = reducer("after_attention", tokens, signals, amount)
    mlp = tokens.count
    tokens = tokens.with_features(tokens.x + parts.mlp_branch(tokens.x))
    if site == "after_block":
        tokens = reducer("after_block", tokens, signals, amount)
    received = signals.received if visit.watch else None
    return tokens, trace._replace(entering=entering, mlp=mlp, leaving=tokens.count), received


def _attention_with(
    parts: BlockParts, tokens: Tokens, signals: Signals, reducer: Reducer, amount: int
) -> tuple[Tokens, BlockTrace]:
    """Attention and its branch, with what the reducer declares about them.

    Groups: the columns of a group's keys are to be added up and its queries' rows averaged. Attention is linear in the
    values, so giving every key its group's value is the same as adding columns up, and averaging the rows of the output
    is the same as averaging those of the map: no map is ever reshuffled.
    """
    change = reducer("inside_attention", tokens, signals, amount)
    count, after = tokens.count, change.tokens
    if isinstance(change, SelectedQueries):
        normed = take(signals.normed, change.rows)
        attended = signals.attend(rows=change.rows)
        trace = BlockTrace.plain(count)._replace(queries=after.count, projected=after.count)
    else:
        normed = parts.norm1(after.x)
        values = spread_rows(parts.values(normed), after.steps[-1].index_map())
        attended = merge_rows(signals.attend(values=values), change.matching, change.weight)
        trace = BlockTrace.plain(count)._replace(values=after.count, projected=after.count)
    return after.with_features(after.x + parts.attention_branch(attended, normed)), trace


def spread_rows(values: Tensor, owner: Tensor) -> Tensor:
    """(B, H, M, d) values and (B, N) owners -> (B, H, N, d), every place with its owner's value, in one copy."""
    batch, heads, count, _ = values.shape
    rows = values.transpose(1, 2).flatten(0, 2)  # (B·M·H, d), a view of a linear layer's output
    first = (owner + count * torch.arange(batch, device=owner.device)[:, None]) * heads
    index = first[:, None] + torch.arange(heads, device=owner.device)[:, None]
    return rows.index_select(0, index.flatten()).unflatten(0, index.shape)


def merge_rows(attended: Tensor, matching: Matching, weight: Tensor) -> Tensor:
    """(B, H, N, d) rows of attention -> (B, H, M, d) their averages over groups by `weight` (B, N)."""
    batch, heads, count, width = attended.shape

    def rows(index: Tensor) -> Tensor:
        """(B, K) places -> (B, K, H·d) from all heads, in one copy."""
        first = index[..., None] + count * torch.arange(heads, device=index.device)
        flat = attended.flatten(0, 2).index_select(0, flat_index(first.flatten(1), heads * count))
        return flat.view(batch, index.shape[1], heads * width)

    merged = group_mean_of(rows(matching.kept), rows(matching.source), matching, weight)
    return merged.unflatten(2, (heads, width)).transpose(1, 2)
