"""Rates, and what they mean block by block."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from suite.errors import RequestError
from suite.reducers.base import Reducer

FORMS = "r=13, r=16:-1, r=[16,16,8], r=0.35@3,6,9, keep=0.7, keep=0.7@3,6,9, merge=0.3, plan=1 or flops=-35%"
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"


@dataclass(frozen=True)
class Rate:
    """What is asked of a reducer.

    kind 'r': `values` holds one number of tokens per block (constant), or one per block if `per_block`; with
    `inflection` the numbers change linearly (ToMe's parse_r); a number below 1 is the fraction of a block's patches
    that is taken out (MCTF). kind 'keep': one kept fraction, or with `per_block` one of the original patches per
    active block (dTPS). kind 'merge': the portion of all patches that is taken out in total, spread evenly over the
    blocks (at least so much, by a method whose counts depend on the image). kind 'plan': which of the plans that the
    method has learned, from 1 in order of strength. kind 'flops': the change of total cost, -0.35 for 35 % less.
    `blocks`: 0-based blocks that it applies to, None for the method's own.
    """

    text: str
    kind: str
    values: tuple[float, ...]
    per_block: bool = False
    inflection: float | None = None
    blocks: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def is_zero(self) -> bool:
        """Asks for no reduction at all (r=0, keep=1, merge=0, flops=0%), which every method can do."""
        return set(self.values) == {1.0} if self.kind == "keep" else not any(self.values)

    @property
    def is_fraction(self) -> bool:
        return self.kind == "r" and 0 < self.values[0] < 1


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


def parse_rate(text: str) -> Rate:
    """'r=13', 'r=16:-1', 'r=[16,8]', 'keep=0.7', '...@3,6,9', 'merge=0.3', 'plan=1', 'flops=-35%'.

    RequestError for others.
    """
    compact = re.sub(r"\s*([=:,@%[\]])\s*", r"\1", text.strip())  # 'r=1 3' stays what it is, and is refused
    body, staged, at = compact.partition("@")
    kind, _, value = body.partition("=")
    try:
        blocks = tuple(int(block) for block in at.split(",")) if staged else None
        if kind == "r":
            return _parse_r(compact, value, blocks)
        if kind == "keep":
            return _parse_keep(compact, value, blocks)
        if kind == "merge":
            return _parse_merge(compact, value, blocks)
        if kind == "plan" and not staged:
            return _parse_plan(compact, value)
        if kind == "flops" and not staged:
            return _parse_flops(compact, value)
    except ValueError:
        pass
    raise RequestError(f"rate {text!r} cannot be read; write for example {FORMS}")


def _parse_keep(text: str, value: str, blocks: tuple[int, ...] | None) -> Rate:
    listed = value.startswith("[") and value.endswith("]")
    parts = value[1:-1].rstrip(",").split(",") if listed else [value]
    if not all(re.fullmatch(NUMBER, part) for part in parts):
        raise ValueError
    keeps = tuple(map(float, parts))
    for keep in keeps:
        if not 0 < keep <= 1:
            raise RequestError(f"rate {text!r}: the kept fraction must lie in (0, 1], not {keep:g}")
    if listed and any(later > earlier for earlier, later in pairwise(keeps)):
        raise RequestError(f"rate {text!r}: kept fractions are of the original patches, so they cannot grow")
    return Rate(text, "keep", keeps, per_block=listed, blocks=blocks)


def _parse_r(text: str, value: str, blocks: tuple[int, ...] | None) -> Rate:
    inflection, per_block = None, False
    if value.startswith("[") and value.endswith("]"):
        values, per_block = tuple(int(r) for r in value[1:-1].rstrip(",").split(",")), True
    elif ":" in value:
        r, _, t = value.partition(":")
        values, inflection = (int(r),), float(t)
        if not -1 <= inflection <= 1:
            raise RequestError(f"rate {text!r}: the inflection must lie in [-1, 1], not {inflection:g}")
    elif re.fullmatch(r"0?\.\d+", value) and float(value) > 0:
        values = (float(value),)
    else:
        values = (int(value),)
    if min(values) < 0:
        raise RequestError(f"rate {text!r} asks for {min(values)} tokens; r counts tokens taken out, use r>=0")
    if blocks is not None and (per_block or inflection is not None):
        raise RequestError(f"rate {text!r}: '@blocks' goes with one number, r=13@3,6,9")
    return Rate(text, "r", values, per_block, inflection, blocks)


def _parse_merge(text: str, value: str, blocks: tuple[int, ...] | None) -> Rate:
    if not re.fullmatch(NUMBER, value):
        raise ValueError
    if not 0 <= float(value) < 1:
        raise RequestError(f"rate {text!r}: the portion of tokens taken out must lie in [0, 1), not {float(value):g}")
    return Rate(text, "merge", (float(value),), blocks=blocks)


def _parse_plan(text: str, value: str) -> Rate:
    if int(value) < 1:
        raise RequestError(f"rate {text!r}: plans count from 1, the weakest; for no reduction write r=0")
    return Rate(text, "plan", (int(value),))


def _parse_flops(text: str, value: str) -> Rate:
    change = float(value[:-1]) / 100 if value.endswith("%") else float(value)
    if not -1 < change <= 0:
        raise RequestError(f"rate {text!r}: write the change of total FLOPs, between 0 and -100 %, such as flops=-35%")
    return Rate(text, "flops", (change,))


def r_per_block(rate: Rate, depth: int) -> list[int]:
    """The r asked of each block. A short list is padded with 0; a long one is refused."""
    if rate.per_block:
        if len(rate.values) > depth:
            raise RequestError(f"rate {rate} lists {len(rate.values)} blocks, but the model has {depth}")
        return [*map(int, rate.values), *[0] * (depth - len(rate.values))]
    r = int(rate.values[0])
    if rate.inflection is None:
        return [r] * depth
    low = int(r * (1 - rate.inflection))
    step = (2 * r - 2 * low) / (depth - 1) if depth > 1 else 0.0
    return [int(low + block * step) for block in range(depth)]


def spread_evenly(portion: float, patches: int, blocks: tuple[int, ...], depth: int) -> list[int]:
    """r of each block, round(portion * patches) in total over `blocks`; the first of them take the remainder."""
    each, rest = divmod(round(portion * patches), len(blocks))
    numbers = {block: each + (place < rest) for place, block in enumerate(blocks)}
    return [numbers.get(block, 0) for block in range(depth)]


def active_blocks(rate: Rate, reducer: Reducer, depth: int) -> tuple[int, ...]:
    """Blocks that a rate acts in: those after '@', else the method's own."""
    if rate.blocks is not None:
        beyond = [block for block in rate.blocks if not 0 <= block < depth]
        if beyond or len(set(rate.blocks)) < len(rate.blocks):
            wrong = f"block {beyond[0]}" if beyond else "a block twice"
            raise RequestError(f"rate {rate} names {wrong}; the model has blocks 0 to {depth - 1}")
        return tuple(sorted(rate.blocks))
    if rate.per_block and rate.kind == "r":
        return tuple(range(depth))
    return reducer.active_blocks("r" if rate.kind == "merge" else rate.kind, depth)


def check_form(rate: Rate, reducer: Reducer) -> None:
    """RequestError if the method is not defined for this form of rate."""
    kind = "r" if rate.kind == "merge" else rate.kind
    if rate.is_zero or (kind == "flops" and reducer.rates):
        return
    if reducer.plans:
        if kind == "plan" and rate.values[0] <= reducer.plans:
            return
        plans = "plan=1" if reducer.plans == 1 else f"plan=1 to plan={reducer.plans}"
        raise RequestError(
            f"rate {rate} is none of what reducer {reducer.name!r} has learned; it takes {plans} or flops=..., and "
            "other rates without its weights"
        )
    if kind == "plan" and reducer.rates:
        raise RequestError(f"rate {rate}: reducer {reducer.name!r} has learned no plans; give weights that hold some")
    if kind in reducer.rates:
        return
    if not reducer.rates:
        raise RequestError(f"reducer {reducer.name!r} takes no rate, but {rate} was asked")
    forms = " or ".join(f"{form}=..." for form in (*reducer.rates, "flops"))
    raise RequestError(f"reducer {reducer.name!r} is not defined for rate {rate}; it takes {forms}")


def resolve(
    rate: Rate | None, reducer: Reducer, *, depth: int, tokens: int, num_prefix: int, afresh: bool = False
) -> Schedule:
    """What `rate` takes out in each block of a backbone that `tokens` tokens enter, `num_prefix` of them protected.

    afresh: every block begins with all tokens again (they are given back after each); what 'keep' leaves and 'merge'
    takes out is then of every block. The first block that is asked for more than it can give raises RequestError; later
    blocks give what they have, as the authors' implementations do (ToMe's r = 16 on DeiT takes 10 tokens out in the
    last block). Of 'merge', which is a total, all blocks have to give what is asked.
    """
    if reducer.planned:
        if rate is not None:
            raise RequestError(f"reducer {reducer.name!r} was given a plan of its own; leave the rate {rate} out")
        return _resolve_own_plan(None, reducer, depth, tokens, num_prefix, afresh)
    if rate is None:
        return Schedule((0,) * depth, (tokens,) * depth, (None,) * depth)
    check_form(rate, reducer)
    if rate.kind == "plan":
        return _resolve_own_plan(int(rate.values[0]), reducer, depth, tokens, num_prefix, afresh)
    blocks = active_blocks(rate, reducer, depth)
    places = {block: stage for stage, block in enumerate(blocks)}
    asked = r_per_block(rate, depth) if rate.kind == "r" and not rate.is_fraction else None
    if rate.kind == "merge":
        asked = spread_evenly(rate.values[0] * (len(blocks) if afresh else 1), tokens - num_prefix, blocks, depth)
    if rate.is_zero:
        return Schedule((0,) * depth, (tokens,) * depth, (None,) * depth)
    if rate.kind == "keep" and rate.per_block and len(rate.values) != len(blocks):
        raise RequestError(f"rate {rate} lists {len(rate.values)} fractions for {len(blocks)} active blocks")
    amounts, counts, count = [], [], tokens
    for block in range(depth):
        amount, count = 0, tokens if afresh else count
        if block in places and asked is not None:
            limit = reducer.capacity(count if rate.kind == "merge" else tokens, num_prefix)
            if asked[block] > limit:
                of, remedy = (count, "take out less") if rate.kind == "merge" else (tokens, f"use r<={limit}")
                raise RequestError(
                    f"rate {rate} asks block {block} to take out {asked[block]} tokens, but {reducer.name!r} can take "
                    f"out at most {limit} of {of}; {remedy}"
                )
            amount = reducer.amount_for_r(max(0, min(asked[block], reducer.capacity(count, num_prefix))))
        elif block in places:
            stage = 0 if afresh and not rate.per_block else places[block]  # nothing adds up over blocks
            amount = _amount_for_part(rate, reducer, stage, count, tokens, num_prefix)
            if amount >= count - num_prefix:
                raise RequestError(f"rate {rate} leaves no patch token in block {block}; keep more")
            limit, fewer = reducer.capacity(count, num_prefix), count - reducer.leaving(count, amount)
            if fewer > limit and not rate.is_fraction:  # amount_for_fraction keeps to what the method allows
                raise RequestError(
                    f"rate {rate} asks block {block} to take out {fewer} tokens, but {reducer.name!r} can take out at "
                    f"most {limit} of {count}; keep more"
                )
        amounts.append(amount)
        count = reducer.leaving(count, amount)
        counts.append(count)
    return Schedule(tuple(amounts), tuple(counts), tuple(map(places.get, range(depth))))


def _amount_for_part(rate: Rate, reducer: Reducer, stage: int, count: int, tokens: int, num_prefix: int) -> int:
    """What a rate that is a fraction takes out of `count` tokens in its block number `stage`."""
    if rate.is_fraction:
        return reducer.amount_for_fraction(rate.values[0], count, num_prefix)
    patches, origin = count - num_prefix, tokens - num_prefix
    if rate.per_block:  # absolute: of the original patches
        return max(0, patches - int(origin * rate.values[stage]))
    return reducer.amount_for_keep(rate.values[0], stage, patches, origin)


def _resolve_own_plan(
    plan: int | None, reducer: Reducer, depth: int, tokens: int, num_prefix: int, afresh: bool
) -> Schedule:
    try:
        amounts, counts, count = reducer.own_plan(depth, tokens, num_prefix, plan, afresh), [], tokens
    except ValueError as error:
        raise RequestError(f"reducer {reducer.name!r}: {error}") from error
    for amount in amounts:
        count = reducer.leaving(tokens if afresh else count, amount)
        counts.append(count)
    return Schedule(tuple(amounts), tuple(counts), tuple(range(depth)), plan)
