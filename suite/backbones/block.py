"""The one reducible forward of a pre-norm transformer block, written once for every backbone family."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from suite.backbones.modules import call_as, is_hooked
from suite.errors import RequestError
from suite.reducers.base import Reducer, SelectedQueries
from suite.reducers.signals import BlockCall, BlockParts, Signals
from suite.tokens.constants import remembered
from suite.tokens.grouping import Matching, average, shares, take
from suite.tokens.state import Tokens


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


Outcome = tuple[Tokens, BlockTrace, tuple[Tensor, ...] | None]


def reducible_block(parts: BlockParts, tokens: Tokens, reducer: Reducer, call: BlockCall) -> Outcome:
    """One block on `tokens`: what leaves it, the counts that its cost follows from, and what the reducer observed.

    While nothing was merged and nothing is asked for, this is the original block: the same kernels on the same
    values, so that zero reduction is the unmodified model bit for bit. Hooks on the block are called either way.

    RequestError for hooks on what it does without calling it.
    """
    entering, amount, fixed = tokens.count, call.amount, parts
    parts = fixed.at(tokens)
    site = reducer.site if call.called else None
    if site == "before_block":
        signals = Signals(parts, tokens, reducer.extra_projection, call, tokens.attention_bias(call.proportional))
        tokens = reducer("before_block", tokens, signals, amount)
        parts = fixed.at(tokens)
    bias, attended = tokens.attention_bias(call.proportional), tokens.count
    whole = site in (None, "before_block") and not call.watch and parts.takes_any
    if whole and bias is None and tokens.residual is None:
        return tokens.with_features(parts.original(tokens.x)), BlockTrace.plain(attended, entering=entering), None
    refuse_hooks(parts)
    outcome: list[Outcome] = []

    def forward(x: Tensor, *_: None) -> Any:
        entered = tokens if x is tokens.x else tokens.with_features(x)  # a hook may say otherwise
        outcome.append(_in_pieces(parts, entered, reducer, call, bias))
        return parts.returned(outcome[-1][0].x)

    x = parts.features(call_as(parts.block, forward, *parts.given(tokens.x)))
    left, trace, observed = outcome[-1]
    if x is not left.x:
        left = left.with_features(x) if left.residual is None else left.add(x - left.x)
    return left, trace._replace(entering=entering), observed


def checkpointed_block(parts: BlockParts, tokens: Tokens, reducer: Reducer, call: BlockCall) -> Outcome:
    """The same, of which the backward pass keeps what enters and computes the rest again."""
    return checkpoint(reducible_block, parts, tokens, reducer, call, use_reentrant=False)


def _in_pieces(parts: BlockParts, tokens: Tokens, reducer: Reducer, call: BlockCall, bias: Tensor | None) -> Outcome:
    """The block part by part, on tokens that a reducer has seen or will."""
    amount = call.amount
    site = reducer.site if call.called else None
    signals = Signals(parts, tokens, reducer.extra_projection, call, bias)
    # the model's own work comes first: what is computed within a reducer's hook is counted as the reducer's
    if not (site == "inside_attention" and reducer.reads_map):
        _ = signals.heads
    if reducer.reads_map and (call.watch or site not in (None, "before_block")):
        attention = signals.attention_map
        if site is not None:
            signals.__dict__["attention_map"] = reducer.change_map(attention)
    if site == "inside_attention":
        tokens, trace = _attention_with(parts, tokens, signals, reducer, amount)
    else:
        added = parts.attention_branch(signals.attend(), signals.normed)
        tokens, trace = tokens.add(added), BlockTrace.plain(tokens.count)
        if call.watch:
            signals.attention_added = added
            # stands for a parallel block, which adds both at once
            signals.mlp_input, signals.mlp_added = signals.entered, added
    mlp = tokens.count
    if site == "after_attention":
        tokens = reducer("after_attention", tokens, signals, amount)
    if not parts.parallel:
        mlp, added = tokens.count, parts.mlp_branch(tokens.x)
        if call.watch:
            signals.mlp_input, signals.mlp_added = tokens.x, added
        tokens = tokens.add(added)
    if site == "after_block":
        tokens = reducer("after_block", tokens, signals, amount)
    observed = reducer.observe(tokens, signals) if call.watch else None
    return tokens, trace._replace(mlp=mlp, leaving=tokens.count), observed


def refuse_hooks(parts: BlockParts) -> None:
    """RequestError, one line, for hooks that would not be called where the block runs in pieces."""
    for name, module in parts.in_pieces.items():
        if is_hooked(module):
            raise RequestError(
                f"a hook on the {name} of block {parts.index} would not be called while a reducer is attached; "
                "put it on the block or on a layer, or detach the reducer first"
            )


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
        values = spread_rows(parts.values(normed), change.matching)
        attended = merge_rows(signals.attend(values=values), change.matching, change.weight)
        trace = BlockTrace.plain(count)._replace(values=after.count, projected=after.count)
    return after.add(parts.attention_branch(attended, normed)), trace


def spread_rows(values: Tensor, matching: Matching) -> Tensor:
    """(B, H, M, d) values of groups -> (B, H, N, d), every place with its group's value, in one copy."""
    batch, heads, count, _ = values.shape
    rows = values.transpose(1, 2).flatten(0, 2)  # (B·M·H, d), a view of a linear layer's output
    first = first_of_heads(batch, heads, count * heads, 1, matching.first_target * heads, values.device)
    index = torch.add(first, matching.owner(count + matching.merged)[:, None], alpha=heads)
    return rows.index_select(0, index.flatten()).unflatten(0, index.shape)


def merge_rows(attended: Tensor, matching: Matching, weight: Tensor) -> Tensor:
    """(B, H, N, d) rows of attention -> (B, H, M, d) their averages over groups by `weight` (B, N)."""
    batch, heads, count, width = attended.shape
    flat = attended.flatten(0, 2)
    # from a row of the flattened batch to those of its heads
    heads_of_row = first_of_heads(batch, heads, (heads - 1) * count, count, 0, flat.device).transpose(1, 2)
    rows = matching.order(count)[..., None] + heads_of_row
    kept, source = (flat[part].flatten(2) for part in rows.split([matching.shape[1], matching.merged], dim=1))
    merged = average((kept, source), matching, shares(matching, weight, kept.dtype))
    return merged.unflatten(2, (heads, width)).transpose(1, 2)


@remembered
def first_of_heads(batch: int, heads: int, per_sample: int, per_head: int, begin: int, device: torch.device) -> Tensor:
    """(B, H, 1) int64: where each head of each sample begins, at these distances."""
    sample, head = torch.arange(batch, device=device), torch.arange(heads, device=device)
    return (per_sample * sample[:, None] + per_head * head + begin)[..., None]
