"""The one reducible forward of a pre-norm transformer block, written once for every backbone family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from suite.backbones.signals import Signals
from suite.reducers.base import Reducer, SelectedQueries
from suite.tokens.grouping import Matching, flat_index, group_mean_of, take
from suite.tokens.state import Tokens


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


@dataclass(frozen=True)
class PartRules:
    """Which part of the cost a module belongs to: patterns on its dotted name within the backbone.

    A block's cost outside its MLP is attention; what is neither in a block nor in the patch embedding is head.
    """

    patch_embed: str = r"patch_embed(\.|$)"
    block: str = r"blocks\.(\d+)(\.|$)"
    mlp: str = r"blocks\.\d+\.mlp(\.|$)"


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

    amount: tokens that the reducer takes out, 0: it is not called. planned: tokens that the rate lets leave the block,
    prefix included; None: not known. stage: place of this block among those the rate acts in. plan: which of the plans
    that the reducer has learned is followed, from 1. fused: weight and bias of qkv with the reducer's extra rows below.
    received: see `Signals.received_before`. grid: rows and columns of the image's patches. watch: the next block's
    reducer wants to know what attention every token received here. proportional: attention is biased by log size.
    """

    amount: int
    depth: int
    planned: int | None = None
    stage: int | None = None
    plan: int | None = None
    fused: tuple[Tensor, Tensor | None] | None = None
    received: Tensor | None = None
    grid: tuple[int, int] | None = None
    watch: bool = False
    proportional: bool = False


class Decoder(Protocol):
    """What reads a backbone's tokens and keeps their number, which a reducer changes."""

    def remember(self) -> None:
        """Note the number to go back to."""

    def tell(self, count: int | None) -> None:
        """None: images of one batch have different numbers of tokens."""

    def restore(self) -> None: ...


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
    if bias is None and site in (None, "before_block") and not visit.watch and tokens.residual is None:
        return tokens.with_features(parts.original(tokens.x)), BlockTrace.plain(attended, entering=entering), None
    signals = Signals(parts, tokens, reducer, visit, bias)
    # the model's own work comes first: what is computed within a reducer's hook is counted as the reducer's
    if not (site == "inside_attention" and reducer.reads_map):
        _ = signals.heads
    if visit.watch or (reducer.reads_map and site not in (None, "before_block")):
        _ = signals.attention_map
    if site == "inside_attention":
        tokens, trace = _attention_with(parts, tokens, signals, reducer, amount)
    else:
        tokens = tokens.add(parts.attention_branch(signals.attend(), signals.normed))
        trace = BlockTrace.plain(attended)
    if site == "after_attention":
        tokens = reducer("after_attention", tokens, signals, amount)
    mlp = tokens.count
    tokens = tokens.add(parts.mlp_branch(tokens.x))
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
    return after.add(parts.attention_branch(attended, normed)), trace


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
