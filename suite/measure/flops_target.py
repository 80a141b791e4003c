"""The rate at which a method reaches a FLOPs target, found from what the model truly costs, and attaching at one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from suite.attachment.attach import attach as attach_at_rate
from suite.attachment.attach import make_prepared
from suite.attachment.handle import Handle
from suite.backbones import backbone_of, family_of
from suite.backbones.block import BlockTrace
from suite.errors import UNREACHED, RequestError
from suite.measure.flops import count_macs_fast, smooth_image
from suite.measure.formula import base_macs
from suite.rates.image_grid import shrunk_grid
from suite.rates.rate import (
    FlopsTarget,
    ImageSide,
    KeptFraction,
    LearnedPlan,
    Rate,
    SimilarityThreshold,
    TokensPerBlock,
    parse_rate,
    parse_target,
)
from suite.rates.schedule import Schedule, check_form, resolve
from suite.reducers import make_reducer
from suite.reducers.base import Reducer
from suite.tokens.layout import Layout

GUESSES = 6
KEEP_DECIMALS = 4  # of kept fractions that are solved for
KEEP_STEPS = 10**KEEP_DECIMALS
TAU_DECIMALS = 3  # of thresholds
TAU_STEPS = 10**TAU_DECIMALS
TOLERANCE = 0.01  # a target is met when the achieved reduction is within one percentage point of it


@dataclass(frozen=True)
class Solved:
    """A solved rate. `reduction`: achieved change of total FLOPs (-0.35 = 35 % less); `macs` per image.

    `neighbours`: the rates on both sides of the target with their reductions, when none comes within one point.
    """

    rate: Rate
    reduction: float
    macs: int
    baseline_macs: int
    target: float
    neighbours: tuple[tuple[Rate, float], ...] = ()

    def __str__(self) -> str:
        return str(self.rate)


def attach(
    model: nn.Module,
    reducer: str | Reducer,
    rate: str | Rate | None = None,
    *,
    weights: str | Path | None = None,
    **options: object,
) -> Handle:
    """Make `model` reduce its tokens from now on, in place and without copying weights.

    Args:
        model: a supported backbone, or a model around one (transformers' GIT, a Captioner); its state dict stays what
            it is.
        reducer: a registered name, 'path/to/file.py:ClassName', or a Reducer.
        rate: 'r=13', 'r=16:-1', 'r=[16,16,8]', 'r=0.35@3,6,9' (fraction taken out), 'keep=0.7', 'keep=0.7@3,6,9',
            'plan=1' (of learned ones) or 'flops=-35%' (solved from the true cost); None reduces nothing, unless the
            method has a plan of its own.
        weights: file of what was trained with the method ('embedded:model/method' for one that comes with the suite).
        options: the method's own options.

    Returns a Handle, also a context manager that detaches at its end. RequestError for what cannot be done.
    """
    asked = None if rate is None else rate if isinstance(rate, Rate) else parse_rate(str(rate))
    if isinstance(asked, FlopsTarget) and not asked.is_zero:
        reducer, options = make_prepared(reducer, weights, options), {}
        asked = solve_rate(model, reducer, flops=asked).rate
    return attach_at_rate(model, reducer, asked, weights=weights, **options)


def solve_rate(
    model: nn.Module,
    reducer: str | Reducer,
    *,
    flops: float | str | FlopsTarget,
    images: Tensor | None = None,
    **options: object,
) -> Solved:
    """The rate of `reducer` on `model` whose true cost, overhead included, is closest to a change of `flops`.

    images: (B, 3, H, W) preprocessed images whose mean cost it is, where that depends on the image; default one
    synthetic image of the model's own size.
    flops: -0.35 or '-35%'. r is solved over integers and never interpolated (ties: the smaller r), keep to 1e-4,
        tau to 1e-3.
    RequestError if the method takes no rate, or its strongest rate is still too expensive.
    """
    target = flops if isinstance(flops, FlopsTarget) else parse_target(str(flops))
    family_of(model)  # refused before anything is measured
    made = reducer if isinstance(reducer, Reducer) else make_reducer(reducer, **options)
    check_form(target, made)
    return Search(model, made, images).solve(target.change)


class Search:
    """Cost over a method's steps: step 0 reduces nothing and every further step reduces more.

    A step is one token per block for r, 1e-4 of the patches for keep, a patch of the image's shorter side, 1e-3 of a
    threshold, and a plan where the method has learned some.
    """

    def __init__(self, model: nn.Module, reducer: Reducer, images: Tensor | None = None) -> None:
        self.model, self.reducer, self.form = backbone_of(model), reducer, form_of(reducer)
        self.family = family = family_of(model)
        self.images = (
            smooth_image(family.image_size(self.model), channels=family.channels(self.model))
            if images is None
            else images
        )
        if not reducer.input_dependent:
            self.images = self.images[:1]
        self.layout = family.layout(self.model)
        restoring = getattr(self.model, "restoring", None)
        self.restored_per_block = reducer.restores_per_block or restoring == "per_block"
        self._macs: dict[Schedule, int] = {}

    def solve(self, target: float) -> Solved:
        """The step closest to a change of `target`. RequestError if the strongest is still too expensive."""
        strongest = self.strongest()
        if self.reduction(strongest) > target + TOLERANCE:
            raise RequestError(
                f"flops={target:+.1%} {UNREACHED} {self.reducer.name!r} on this model: its strongest rate "
                f"{self.rate(strongest)} gives {self.reduction(strongest):+.1%}; ask for less"
            )
        low, high = self.bracket_plans(target) if self.form == LearnedPlan.form else self.bracket(strongest, target)
        # what reduces nothing is no answer to a wish for less
        ends = (low, high) if low or abs(target) <= TOLERANCE else (high,)
        best = min(ends, key=lambda step: (abs(self.reduction(step) - target), step))
        missed = abs(self.reduction(best) - target) > TOLERANCE
        return Solved(
            rate=self.rate(best),
            reduction=self.reduction(best),
            macs=self.macs(best),
            baseline_macs=self.macs(0),
            target=target,
            neighbours=tuple((self.rate(s), self.reduction(s)) for s in (low, high)) if missed else (),
        )

    def bracket(self, strongest: int, target: float) -> tuple[int, int]:
        """Neighbouring steps on both sides of the target; the strongest and the one before where it is not reached."""
        low, high = 0, strongest  # reduction(low) >= target, and reduction(high) <= target unless high is the strongest
        tries = 0
        while high - low > 1:
            # the closed form finds the place in few counts; halving finds it for certain
            middle = self.guess(low, high, target) if tries < GUESSES else (low + high) // 2
            tries += 1
            low, high = (low, middle) if self.reduction(middle) <= target else (middle, high)
        return low, high

    def bracket_plans(self, target: float) -> tuple[int, int]:
        """The same among plans, which are few: all are counted, for their costs need not fall as their targets do."""
        steps = sorted(range(self.reducer.num_learned_schedules + 1), key=lambda step: -self.reduction(step))
        place = next((n for n, step in enumerate(steps) if self.reduction(step) <= target), len(steps) - 1)
        return steps[max(place - 1, 0)], steps[place]

    def guess(self, low: int, high: int, target: float) -> int:
        """A step in (low, high) where the target is crossed, if cost beyond the closed form is as at the nearest ends.

        Between the ends, what the method itself costs is taken to change evenly.
        """
        ratios = [self.macs(step) / self.closed_form(step) for step in (low, high)]

        def reduction(step: int) -> float:
            share = (step - low) / (high - low)
            return self.closed_form(step) * ((1 - share) * ratios[0] + share * ratios[1]) / self.macs(0) - 1

        first, last = low, high
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (first, middle) if reduction(middle) <= target else (middle, last)
        # the step before the crossing closes the bracket from below; once that is done, the crossing itself
        return min(max(first if first > low else last, low + 1), high - 1)

    def closed_form(self, step: int) -> int:
        """Cost without what the method itself computes, as for a method that acts after attention."""
        counts, layout = self.schedule(step).counts, self.layout_of(step)
        entering = [layout.tokens] * len(counts) if self.restored_per_block else (layout.tokens, *counts[:-1])
        blocks = map(BlockTrace.plain, entering, counts)
        return base_macs(layout, list(blocks)).total

    def rate(self, step: int) -> Rate:
        if self.form == KeptFraction.form:
            return KeptFraction(round(1 - step / KEEP_STEPS, KEEP_DECIMALS))
        if self.form == SimilarityThreshold.form:
            return SimilarityThreshold(round(1 - step / TAU_STEPS, TAU_DECIMALS))
        if self.form == ImageSide.form:
            most, side = self.shorter_side
            return ImageSide((most - step) * side)
        return LearnedPlan(step) if self.form == LearnedPlan.form and step else TokensPerBlock(step)

    def schedule(self, step: int) -> Schedule:
        layout, rate = self.layout_of(step), self.rate(step)
        shape = {"depth": layout.depth, "tokens": layout.tokens, "num_prefix": layout.num_prefix}
        return resolve(rate, self.reducer, **shape, restored_per_block=self.restored_per_block, grid=layout.grid)

    def layout_of(self, step: int) -> Layout:
        """The shape that the blocks have: of a method that shrinks images, that of smaller ones."""
        if self.form != ImageSide.form:
            return self.layout
        (height, width), full = self.patch, self.grid
        rows, columns = shrunk_grid(self.rate(step), self.reducer, full, self.patch)
        return self.family.layout(self.model, (rows * height, columns * width))

    @property
    def patch(self) -> tuple[int, int]:
        return self.family.patch_size(self.model)

    @property
    def grid(self) -> tuple[int, int]:
        return self.family.grid(self.model, self.family.image_size(self.model))

    @property
    def shorter_side(self) -> tuple[int, int]:
        """Patches along it, and pixels of each."""
        return min(zip(self.grid, self.patch, strict=True))

    def macs(self, step: int) -> int:
        """Multiply-accumulates per image, counted once per distinct schedule."""
        schedule = self.schedule(step)
        if schedule not in self._macs:
            with attach_at_rate(self.model, self.reducer, self.rate(step)), torch.no_grad():
                counted = [count_macs_fast(self.model, image[None]) for image in self.images]
            self._macs[schedule] = round(sum(counted) / len(counted))
        return self._macs[schedule]

    def reduction(self, step: int) -> float:
        return self.macs(step) / self.macs(0) - 1

    def strongest(self) -> int:
        """The last step that the model allows; of plans, the cheapest."""
        if self.form == LearnedPlan.form:
            return min(range(1, self.reducer.num_learned_schedules + 1), key=self.macs)
        if self.form == ImageSide.form:
            return self.shorter_side[0] - 1
        steps = {KeptFraction.form: KEEP_STEPS, SimilarityThreshold.form: 2 * TAU_STEPS}
        low, high = 0, steps.get(self.form, self.layout.tokens)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self.schedule(middle)
                low = middle
            except RequestError:
                high = middle
        return low


def form_of(reducer: Reducer) -> str:
    """The form of rate that a FLOPs target is solved over."""
    return LearnedPlan.form if reducer.num_learned_schedules else reducer.rates[0]
