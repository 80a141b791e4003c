"""What a block can tell a reducer, computed when it is asked for, and what a block has to say for that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suite.tokens.grouping import computed_in
from suite.tokens.products import scaled_product
from suite.tokens.state import Tokens


class BlockCall(NamedTuple):
    """What one forward is to do in one block.

    amount: tokens that the reducer takes out. called: its hook is; where it is not, none go. planned: tokens that the
    rate lets leave the block, prefix included; None: not known. stage: place of this block among those the rate acts
    in. plan: which of the plans that the reducer has learned is followed, from 1. fused: weight and bias of qkv with
    the reducer's extra rows below, and how many rows are qkv's. observed: see `Signals.observed`. grid: rows and
    columns of the image's patches. watch: the reducer observes this block, for it acts in the next. proportional:
    attention is biased by log size. grids: rows and columns of the patches that enter and of those that are to leave,
    of a method that keeps a grid. threshold: of a rate that is one, what makes tokens redundant in this block.
    """

    amount: int
    depth: int
    called: bool = False
    planned: int | None = None
    stage: int | None = None
    plan: int | None = None
    fused: tuple[Tensor, Tensor, int] | None = None
    observed: tuple[Tensor, ...] | None = None
    grid: tuple[int, int] | None = None
    watch: bool = False
    proportional: float = False
    grids: tuple[tuple[int, int], tuple[int, int]] | None = None
    threshold: float | None = None


class BlockParts(ABC):
    """Where the pieces of one block are; what a backbone family has to say about it.

    block, attention: the modules. in_pieces: by name, modules within the block that are not called, and whose hooks are
    not, where it runs in pieces.
    """

    index: int
    block: Any  # libraries build its parts by name: no types
    attention: Any
    in_pieces: Mapping[str, nn.Module] = {}
    scale: float
    fused: bool  # attention through scaled_dot_product_attention, as the original block does
    takes_any: bool = True  # `original` can be run on tokens of which some were taken out
    position_bias: Tensor | None = None  # (B, H, N, N) that the block adds to the logits of its tokens
    parallel: bool = False  # the MLP is computed beside attention, in `attention_branch`
    num_class: int  # leading tokens that a head reads: class, and distillation where there is one

    @abstractmethod
    def original(self, x: Tensor) -> Tensor:
        """The untouched block, (B, N, C) -> (B, N, C)."""

    def given(self, x: Tensor) -> tuple[Any, ...]:
        """What the block is called with for tokens `x`."""
        return (x,)

    def returned(self, x: Tensor) -> Any:
        """What the block returns where tokens `x` leave it."""
        return x

    def features(self, returned: Any) -> Tensor:
        """The tokens (B, N, C) in what the block returned."""
        return returned

    def at(self, tokens: Tokens) -> BlockParts:
        """The same block for tokens at these places; one that does not go by positions is itself."""
        return self

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
        """The one linear layer that `qkv` consists of, where it is one and nothing else; see `split_heads`."""
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

    def dropped(self, attention: Tensor) -> Tensor:
        """The attention map (B, H, M, N) after its dropout."""
        return F.dropout(attention, self.attention_dropout)


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

    Signals describe the tokens before attention: positions agree with the tokens that the hook receives. Those of a
    block that is observed (`Reducer.observe`) say at its end what it did to the residual stream, each (B, N, C):
    `attention_added`, and to `mlp_input` the MLP `mlp_added`.
    """

    attention_added: Tensor
    mlp_input: Tensor
    mlp_added: Tensor

    def __init__(
        self,
        parts: BlockParts,
        tokens: Tokens,
        extra_projection: Callable[[int], tuple[Tensor, Tensor] | None],
        call: BlockCall,
        bias: Tensor | None = None,
    ) -> None:
        self._parts, self._tokens, self._call, self._given_bias = parts, tokens, call, bias
        self._extra_projection = extra_projection
        self.block, self.depth, self.grid = parts.index, call.depth, call.grid
        self.stage = cast(int, call.stage)  # a method acts in the blocks that have one
        self.planned, self.plan = call.planned, call.plan
        self.grids = cast(tuple[tuple[int, int], tuple[int, int]], call.grids)  # of a method that keeps a grid
        self.threshold = cast(float, call.threshold)  # where the rate is one

    @property
    def entered(self) -> Tensor:
        """(B, N, C) the residual stream that attention reads."""
        return self._tokens.x

    @property
    def num_class(self) -> int:
        """How many leading tokens a head reads: the class token, and a distillation token where there is one."""
        return self._parts.num_class

    @lazy
    def _bias(self) -> Tensor | None:
        """What is added to logits: of keys (B, 1, 1, N), or of every pair (B or 1, 1 or H, N, N)."""
        given, between = self._given_bias, self._parts.position_bias
        return given if between is None else between if given is None else between + given

    def _bias_of(self, rows: Tensor | None) -> Tensor | None:
        """The same of queries `rows` (B, M) alone."""
        bias = self._bias
        if rows is None or bias is None or bias.shape[2] == 1:
            return bias
        return bias.take_along_dim(rows[:, None, :, None], 2)

    @lazy
    def normed(self) -> Tensor:
        """(B, N, C) the block's first norm of the residual stream: what queries, keys and values are made of."""
        return self._parts.norm1(self._tokens.x)

    @lazy
    def heads(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, each (B, H, N, d)."""
        if self._call.fused is None:
            return self._parts.qkv(self.normed)
        weight, bias, rows = self._call.fused
        projected = F.linear(self.normed, weight, bias)
        self.__dict__["extra"] = projected[..., rows:]
        return self._parts.split_heads(projected[..., :rows])

    @lazy
    def queries_keys(self) -> tuple[Tensor, Tensor]:
        """Queries and keys, each (B, H, N, d), without the values unless those are there already."""
        return self.heads[:2] if "heads" in self.__dict__ else self._parts.queries_keys(self.normed)

    @lazy
    def extra(self) -> Tensor:
        """(B, N, D) the method's `Reducer.extra_projection` of `normed`."""
        projection = self._extra_projection(self.block)
        if projection is None:
            raise ValueError("the method has no extra projection in this block; see Reducer.extra_projection")
        return F.linear(self.normed, *projection)

    @lazy
    def value_norm(self) -> Tensor:
        """(B, N) float32 at least: the length of a token's values, those of all heads together."""
        values = self.heads[2]
        dtype = torch.promote_types(values.dtype, torch.float32)
        return torch.linalg.vector_norm(values, dim=(1, 3), dtype=dtype)

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
        few = queries[:, :, :rows] * self._parts.scale
        logits = (keys @ few.transpose(-2, -1)).transpose(-2, -1)
        single = torch.promote_types(logits.dtype, torch.float32)
        if self._bias is not None:
            logits = computed_in(single, torch.add, logits, self._bias[:, :, :rows])
        return logits.softmax(dim=-1, dtype=single)

    @lazy
    def attention_map(self) -> Tensor:
        """(B, H, N, N) softmax attention. Asked for before attention runs, it is the map that attention uses."""
        queries, keys = self.queries_keys
        # both copied by one kernel to where a batched product reads them
        queries, keys = torch.stack([queries, keys]).unbind()
        return self._softmax(queries, keys, self._bias)

    @lazy
    def received(self) -> Tensor:
        """(B, N) float32 attention that every token receives, averaged over heads and queries; sums to 1."""
        dtype = torch.promote_types(self.attention_map.dtype, torch.float32)
        return self.attention_map.mean(dim=(1, 2), dtype=dtype)

    @property
    def observed(self) -> tuple[Tensor, ...] | None:
        """What `Reducer.observe` kept of the block before; None in the first block."""
        return self._call.observed

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
                attn_mask=self._bias_of(rows),
                dropout_p=parts.attention_dropout,
                scale=parts.scale,
            )
        if rows is None:
            attention = self.attention_map
        elif "attention_map" in self.__dict__:
            attention = self.attention_map.take_along_dim(rows[:, None, :, None], 2)
        else:
            attention = self._softmax(queries.take_along_dim(rows[:, None, :, None], 2), keys, self._bias_of(rows))
        return parts.dropped(attention) @ values

    def _softmax(self, queries: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
        """Attention (B, H, M, N) that queries (B, H, M, d) pay to keys (B, H, N, d)."""
        logits = scaled_product(queries.flatten(0, 1), keys.flatten(0, 1), self._parts.scale)
        logits = logits.unflatten(0, queries.shape[:2])
        if bias is not None:
            differentiated = logits.requires_grad or bias.requires_grad
            # in place where nobody differentiates: a map is large, and a fresh one is slow
            logits = logits + bias if differentiated else logits.add_(bias)
        return logits.softmax(dim=-1)
