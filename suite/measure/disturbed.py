"""Rounds of timing in which something came between: a process that was stopped, a quota, a neighbour, a slow-down.

A median of five rounds bears one such round, its interval does not: such a round is timed again, once, and what it said
is kept beside what is used in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from statistics import median

from suite.measure.timing import Block
from suite.measure.variant import Variant

APART, LEAST = 1.5, 0.05
"""A block was disturbed that takes so many times the median of its variant's, or goes into it so often, and is so many
seconds off it: less is the machine's own unrest."""


def disturbed_rounds(variants: Sequence[Variant], rounds: int) -> dict[int, str]:
    """Rounds (from 0 on) with a block that is far from the others of its variant, and what is to be said of each.

    variants: that have not failed, with as many blocks in every round: one of a cell, two of the unreduced model. None
    of fewer than three rounds, where nobody can say which of them it is.
    """
    found: dict[int, float] = {}
    for variant in variants if rounds > 2 else ():
        usual = median(variant.seconds)
        for number in range(rounds):
            for block in variant.blocks[of_round(variant, number, rounds)]:
                times, off = block.seconds / usual, abs(block.seconds - usual) * block.launched
                if max(times, 1 / times) > APART and off > LEAST:
                    found[number] = max(found.get(number, times), times, key=lambda times: abs(log(times)))
    return {
        number: f"a block of round {number + 1} took {times:.2g} times its usual time"
        for number, times in sorted(found.items())
    }


def of_round(variant: Variant, number: int, rounds: int) -> slice:
    """Where the blocks of a round are."""
    each = len(variant.blocks) // rounds
    return slice(each * number, each * (number + 1))


def replace_round(variant: Variant, number: int, rounds: int, blocks: list[Block]) -> None:
    """Put the blocks of another round into the place of one, which go to `variant.disturbed`."""
    place = of_round(variant, number, rounds)
    variant.disturbed += variant.blocks[place]
    variant.blocks[place] = blocks
