"""What a rate means block by block."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from suite.errors import RequestError
from suite.rates.grid_lines import Grid, grid_of_patches, least_grid, nearest_grid
from suite.rates.rate import (
    FlopsTarget,
    FractionPerBlock,
    GridLines,
    KeptFraction,
    LearnedPlan,
    MergedPortion,
    Rate,
    RateOfBlocks,
    SimilarityThreshold,
    TokensPerBlock,
)
from suite.reducers.base import Reducer


@dataclass(frozen=True)
class Schedule:
    """A rate resolved for one backbone.

    amounts[l]: tokens taken out in block l; counts[l]: tokens that leave it; stages[l]: its place among the blocks that
    the rate acts in, None for the others. plan: the learned plan that this is, from 1; None: it is none. grids[l], of a
    method that keeps a grid: rows and columns of the patches that enter block l and of those that leave it.
    thresholds[l], of a rate that is one: what makes tokens redundant there. Both have no entries otherwise.
    """

    amounts: tuple[int, ...]
    counts: tuple[int, ...]
    stages: tuple[int | None, ...]
    plan: int | None = None
    grids: tuple[tuple[Grid, Grid], ...] = ()
    thresholds: tuple[float, ...] = ()

    @property
    def num_stages(self) -> int:
        return sum(stage is not None for stage in self.stages)

    def called(self, reducer: Reducer) -> tuple[bool, ...]:
        """Whether the reducer's hook is called, of every block."""
        everywhere = reducer.only_looks or (reducer.orders_tokens and any(self.amounts))
        return tuple(everywhere or amount > 0 for amount in self.amounts)


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
    """Blocks that a rate acts in: those after '@', else the method's own, `Reducer.first_block` and later ones.

    RequestError for a rate that names others.
    """
    first, at = reducer.first_block, rate.blocks or ()
    if isinstance(rate, TokensPerBlock) and isinstance(rate.r, tuple):
        at = tuple(block for block, r in enumerate(rate.r) if r)
    if not rate.is_zero and (depth <= first or any(0 <= block < first for block in at)):
        raise RequestError(
            f"rate {rate} is of block 0, but {reducer.name!r} goes by the block before the one that it acts in; begin "
            f"at block {first}"
        )
    if rate.blocks is not None:
        beyond = [block for block in rate.blocks if not 0 <= block < depth]
        if beyond or len(set(rate.blocks)) < len(rate.blocks):
            wrong = f"block {beyond[0]}" if beyond else "a block twice"
            raise RequestError(f"rate {rate} names {wrong}; the model has blocks 0 to {depth - 1}")
        return tuple(sorted(rate.blocks))
    if isinstance(rate, TokensPerBlock) and isinstance(rate.r, tuple):
        return tuple(range(depth))
    return tuple(block for block in reducer.active_blocks(rate.form, depth) if block >= first)


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
    grid: Grid | None = None

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
    grid: Grid | None = None,
) -> Schedule:
    """What `rate` takes out in each block of a backbone that `tokens` tokens enter, `num_prefix` of them protected.

    grid: rows and columns of the patches, for a method that keeps a grid; None: they are square.
    restored_per_block: all tokens are given back after each block, so that every block begins with them; what 'keep'
    leaves and 'merge' takes out is then of every block. The first block that is asked for more than it can give raises
    RequestError; later blocks give what they have, as the authors' implementations do (ToMe's r = 16 on DeiT takes 10
    tokens out in the last block). Of 'merge', which is a total, all blocks have to give what is asked.
    """
    of = _Sequence(depth, tokens, num_prefix, restored_per_block or reducer.restores_per_block, grid)
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
    listed = (
        rate.keep if isinstance(rate, KeptFraction) else rate.tau if isinstance(rate, SimilarityThreshold) else None
    )
    if isinstance(listed, tuple) and len(listed) != len(blocks):
        raise RequestError(f"rate {rate} lists {len(listed)} numbers for {len(blocks)} active blocks")
    places = {block: stage for stage, block in enumerate(blocks)}
    if isinstance(rate, SimilarityThreshold):
        return _thresholds(rate, reducer, of, places)
    if reducer.keeps_grid:
        return _thin(rate, reducer, of, places, asked)
    amounts, counts, count = [], [], tokens
    for block in range(depth):
        count = of.entering(count)
        amount = _take_out(rate, reducer, of, block, places[block], asked, count) if block in places else 0
        amounts.append(amount)
        count = reducer.leaving(count, amount)
        counts.append(count)
    return Schedule(tuple(amounts), tuple(counts), tuple(map(places.get, range(depth))))


def _thresholds(rate: SimilarityThreshold, reducer: Reducer, of: _Sequence, places: dict[int, int]) -> Schedule:
    """The method is called where something can be above the threshold; how much, nobody knows before the images."""
    at = [rate.taus[places[block] % len(rate.taus)] if block in places else 1.0 for block in range(of.depth)]
    amounts = tuple(int(tau < 1 and reducer.capacity(of.tokens, of.num_prefix) > 0) for tau in at)
    stages = tuple(map(places.get, range(of.depth)))
    return Schedule(amounts, (of.tokens,) * of.depth, stages, thresholds=tuple(at))


def _thin(
    rate: RateOfBlocks, reducer: Reducer, of: _Sequence, places: dict[int, int], asked: list[int] | None
) -> Schedule:
    """Whole rows and columns taken out of the grid that the patches stand in."""
    grid = whole = grid_of_patches(of.grid, of.patches)
    grids = []
    for block in range(of.depth):
        entering = grid = whole if of.restored_per_block else grid
        if block in places:
            if isinstance(rate, GridLines):
                grid = _without_lines(rate, reducer, block, entering)
            else:
                count = of.num_prefix + prod(entering)
                amount = _take_out(rate, reducer, of, block, places[block], asked, count)
                grid = _nearest_without(rate, reducer, block, entering, prod(entering) - amount)
        grids.append((entering, grid))
    amounts = tuple(prod(entering) - prod(left) for entering, left in grids)
    counts = tuple(of.num_prefix + prod(left) for _, left in grids)
    return Schedule(amounts, counts, tuple(map(places.get, range(of.depth))), grids=tuple(grids))


def _without_lines(rate: GridLines, reducer: Reducer, block: int, grid: Grid) -> Grid:
    """RequestError for more than every second row or column."""
    left, least = (grid[0] - rate.rows, grid[1] - rate.columns), least_grid(grid)
    if left[0] < least[0] or left[1] < least[1]:
        raise RequestError(
            f"rate {rate} asks block {block} to take out {rate.rows} rows and {rate.columns} columns, but "
            f"{reducer.name!r} can take out at most {grid[0] // 2} and {grid[1] // 2} of {grid[0]} x {grid[1]}; take "
            "out fewer"
        )
    return left


def _nearest_without(rate: Rate, reducer: Reducer, block: int, grid: Grid, wanted: int) -> Grid:
    """The grid of nearly so many patches. RequestError for fewer than are left without every second row and column."""
    if wanted < (least := prod(least_grid(grid))):
        raise RequestError(
            f"rate {rate} asks block {block} to leave {wanted} of {prod(grid)} patches, but {reducer.name!r} leaves at "
            f"least {least}, without every second row and column; keep more"
        )
    return nearest_grid(grid, wanted)


def untouched(depth: int, tokens: int) -> Schedule:
    """The schedule of blocks that take nothing out."""
    return Schedule((0,) * depth, (tokens,) * depth, (None,) * depth)


def _take_out(
    rate: Rate, reducer: Reducer, of: _Sequence, block: int, stage: int, asked: list[int] | None, count: int
) -> int:
    """What a block, number `stage` of those active, takes out of `count` tokens. asked: r of every block, or None."""
    if asked is not None:
        return _take_tokens(rate, reducer, of, block, asked[block], count)
    assert isinstance(rate, FractionPerBlock | KeptFraction)
    return _take_part(rate, reducer, of, block, stage, count)


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
        try:
            amount = reducer.amount_for_keep(rate.keep, stage, count - of.num_prefix, of.patches)
        except ValueError as error:
            raise RequestError(f"reducer {reducer.name!r}: {error}") from error
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
