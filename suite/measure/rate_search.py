"""Cost over the rates of a method, and the rate whose cost comes nearest to a target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from suite.attachment.attach import attach
from suite.backbones import backbone_of, family_of
from suite.backbones.block import BlockTrace
from suite.errors import UNREACHED, RequestError
from suite.measure.flops import count_macs_fast, smooth_image
from suite.measure.formula import base_macs
from suite.rates.image_grid import shrunk_grid
from suite.rates.rate import ImageSide, KeptFraction, LearnedPlan, Rate, SimilarityThreshold, TokensPerBlock
from suite.rates.schedule import Schedule, resolve
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
        return base_macs(layout, list(blocks), self.restored_per_block).total

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
            with attach(self.model, self.reducer, self.rate(step)), torch.no_grad():
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
