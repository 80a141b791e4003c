"""What a rate means block by block."""

from __future__ import annotations

from dataclasses import dataclass

from suite.errors import RequestError
from suite.rates.rate import (
    FlopsTarget,
    FractionPerBlock,
    KeptFraction,
    LearnedPlan,
    MergedPortion,
    Rate,
    RateOfBlocks,
    TokensPerBlock,
)
from suite.reducers.base import Reducer


@dataclass(frozen=True)
class Schedule:
    """A rate resolved for one backbone.

    amounts[l]: tokens taken out in block l; counts[l]: tokens that leave it; stages[l]: its place among the blocks that
    the rate acts in, None for the others. plan: the learned plan that this is, from 1; None: it is none.
    """

    amounts: tuple[int, ...]
    counts: tuple[int, ...]
    stages: tuple[int | None, ...]
    plan: int | None = None

    @property
    def num_stages(self) -> int:
        return sum(stage is not None for stage in self.stages)


def r_per_block(rate: TokensPerBlock, depth: int) -> list[int]:
    """The r asked of each block. A short list is padded with 0; a long one is refused."""
    if isinstance(rate.r, tuple):
        if len(rate.r) > depth:
            raise RequestError(f"rate {rate} lists {len(rate.r)} blocks, but the model has {depth}")
        return [*rate.r, *[0] * (depth - len(rate.r))]
    if rate.inflection is None:
        return [rate.r] * depth
    low = int(rate.r * (1 - rate.inflection))
    step = (2 * rate.r - 2 * low) / (depth - 1) if depth > 1 else 0.0
    return [int(low + block * step) for block in range(depth)]


def spread_evenly(portion: float, patches: int, blocks: tuple[int, ...], depth: int) -> list[int]:
    """r of each block, round(portion * patches) in total over `blocks`; the first of them take the remainder."""
    each, rest = divmod(round(portion * patches), len(blocks))
    numbers = {block: each + (place < rest) for place, block in enumerate(blocks)}
    return [numbers.get(block, 0) for block in range(depth)]


def active_blocks(rate: RateOfBlocks, reducer: Reducer, depth: int) -> tuple[int, ...]:
    """Blocks that a rate acts in: those after '@', else the method's own."""
    if rate.blocks is not None:
        beyond = [block for block in rate.blocks if not 0 <= block < depth]
        if beyond or len(set(rate.blocks)) < len(rate.blocks):
            wrong = f"block {beyond[0]}" if beyond else "a block twice"
            raise RequestError(f"rate {rate} names {wrong}; the model has blocks 0 to {depth - 1}")
        return tuple(sorted(rate.blocks))
    if isinstance(rate, TokensPerBlock) and isinstance(rate.r, tuple):
        return tuple(range(depth))
    return reducer.active_blocks(rate.form, depth)


def check_form(rate: Rate, reducer: Reducer) -> None:
    """RequestError if the method is not defined for this form of rate."""
    if reducer.has_fixed_schedule:
        raise RequestError(f"reducer {reducer.name!r} was given a plan of its own; leave the rate {rate} out")
    if rate.is_zero or (isinstance(rate, FlopsTarget) and reducer.rates):
        return
    if learned := reducer.num_learned_schedules:
        if isinstance(rate, LearnedPlan) and rate.number <= learned:
            return
        plans = "plan=1" if learned == 1 else f"plan=1 to plan={learned}"
        raise RequestError(
            f"rate {rate} is none of what reducer {reducer.name!r} has learned; it takes {plans} or flops=..., and "
            "other rates without its weights"
        )
    if isinstance(rate, LearnedPlan) and reducer.rates:
        raise RequestError(f"rate {rate}: reducer {reducer.name!r} has learned no plans; give weights that hold some")
    if rate.form in reducer.rates:
        return
    if not reducer.rates:
        raise RequestError(f"reducer {reducer.name!r} takes no rate, but {rate} was asked")
    forms = " or ".join(f"{form}=..." for form in (*reducer.rates, FlopsTarget.form))
    raise RequestError(f"reducer {reducer.name!r} is not defined for rate {rate}; it takes {forms}")


@dataclass(frozen=True)
class _Sequence:
    """What a rate is resolved for; see `resolve`."""

    depth: int
    tokens: int
    num_prefix: int
    restored_per_block: bool

    @property
    def patches(self) -> int:
        return self.tokens - self.num_prefix

    def entering(self, left: int) -> int:
        """Tokens that enter a block, where `left` of them left the one before."""
        return self.tokens if self.restored_per_block else left


def resolve(
    rate: Rate | None,
    reducer: Reducer,
    *,
    depth: int,
    tokens: int,
    num_prefix: int,
    restored_per_block: bool = False,
) -> Schedule:
    """What `rate` takes out in each block of a backbone that `tokens` tokens enter, `num_prefix` of them protected.

    restored_per_block: all tokens are given back after each block, so that every block begins with them; what 'keep'
    leaves and 'merge' takes out is then of every block. The first block that is asked for more than it can give raises
    RequestError; later blocks give what they have, as the authors' implementations do (ToMe's r = 16 on DeiT takes 10
    tokens out in the last block). Of 'merge', which is a total, all blocks have to give what is asked.
    """
    of = _Sequence(depth, tokens, num_prefix, restored_per_block)
    if rate is not None:
        check_form(rate, reducer)
    if reducer.site == "before_embedding":  # what it takes out was never a token (`shrunk_grid`)
        return untouched(depth, tokens)
    if reducer.has_fixed_schedule:
        return _resolve_plan(None, reducer, of)
    if isinstance(rate, LearnedPlan):
        return _resolve_plan(rate.number, reducer, of)
    if isinstance(rate, FlopsTarget) and not rate.is_zero:
        raise RequestError(f"rate {rate} is a target and no rate yet; suite.attach finds the rate that reaches it")
    blocks = active_blocks(rate, reducer, depth) if isinstance(rate, RateOfBlocks) else ()
    asked: list[int] | None = None
    if isinstance(rate, TokensPerBlock):
        asked = r_per_block(rate, depth)
    elif isinstance(rate, MergedPortion):
        asked = spread_evenly(rate.portion * (len(blocks) if restored_per_block else 1), of.patches, blocks, depth)
    if not isinstance(rate, RateOfBlocks) or rate.is_zero:
        return untouched(depth, tokens)
    if isinstance(rate, KeptFraction) and isinstance(rate.keep, tuple) and len(rate.keep) != len(blocks):
        raise RequestError(f"rate {rate} lists {len(rate.keep)} fractions for {len(blocks)} active blocks")
    places = {block: stage for stage, block in enumerate(blocks)}
    amounts, counts, count = [], [], tokens
    for block in range(depth):
        amount, count = 0, of.entering(count)
        if block in places and asked is not None:
            amount = _take_tokens(rate, reducer, of, block, asked[block], count)
        elif block in places and isinstance(rate, FractionPerBlock | KeptFraction):
            amount = _take_part(rate, reducer, of, block, places[block], count)
        amounts.append(amount)
        count = reducer.leaving(count, amount)
        counts.append(count)
    return Schedule(tuple(amounts), tuple(counts), tuple(map(places.get, range(depth))))


def untouched(depth: int, tokens: int) -> Schedule:
    """The schedule of blocks that take nothing out."""
    return Schedule((0,) * depth, (tokens,) * depth, (None,) * depth)


def _take_tokens(rate: Rate, reducer: Reducer, of: _Sequence, block: int, asked: int, count: int) -> int:
    """What takes `asked` of `count` tokens out, or as many as there are."""
    in_total = isinstance(rate, MergedPortion)
    there = count if in_total else of.tokens
    limit = reducer.capacity(there, of.num_prefix)
    if asked > limit:
        remedy = "take out less" if in_total else f"use r<={limit}"
        raise RequestError(
            f"rate {rate} asks block {block} to take out {asked} tokens, but {reducer.name!r} can take out at most "
            f"{limit} of {there}; {remedy}"
        )
    return reducer.amount_for_r(max(0, min(asked, reducer.capacity(count, of.num_prefix))))


def _take_part(
    rate: FractionPerBlock | KeptFraction, reducer: Reducer, of: _Sequence, block: int, stage: int, count: int
) -> int:
    """What a rate that is a fraction takes out of `count` tokens, in its block number `stage`."""
    if isinstance(rate, FractionPerBlock):  # keeps to what the method allows
        amount = reducer.amount_for_fraction(rate.fraction, count, of.num_prefix)
    elif isinstance(rate.keep, tuple):  # absolute: of the original patches
        amount = max(0, count - of.num_prefix - int(of.patches * rate.keep[stage]))
    else:
        stage = 0 if of.restored_per_block else stage  # nothing adds up over blocks
        amount = reducer.amount_for_keep(rate.keep, stage, count - of.num_prefix, of.patches)
    if amount >= count - of.num_prefix:
        raise RequestError(f"rate {rate} leaves no patch token in block {block}; keep more")
    limit, fewer = reducer.capacity(count, of.num_prefix), count - reducer.leaving(count, amount)
    if fewer > limit and isinstance(rate, KeptFraction):
        raise RequestError(
            f"rate {rate} asks block {block} to take out {fewer} tokens, but {reducer.name!r} can take out at most "
            f"{limit} of {count}; keep more"
        )
    return amount


def _resolve_plan(plan: int | None, reducer: Reducer, of: _Sequence) -> Schedule:
    """The method's own schedule: of its learned ones that of this number, from 1; None: that which it brings."""
    try:
        amounts = reducer.learned_schedule(of.depth, of.tokens, of.num_prefix, plan, of.restored_per_block)
    except ValueError as error:
        raise RequestError(f"reducer {reducer.name!r}: {error}") from error
    counts, count = [], of.tokens
    for amount in amounts:
        count = reducer.leaving(of.entering(count), amount)
        counts.append(count)
    return Schedule(tuple(amounts), tuple(counts), tuple(range(of.depth)), plan)
