"""Looking at growing data several times, and erring no more often than with one look.

Every look has a level of its own, and the levels add up to alpha: whatever is rejected at its look's level is rejected
wrongly with probability at most alpha, however the looks depend on each other (Bonferroni over the looks), so that
exact tests stay exact. Knowing their joint law would allow slightly larger levels; with looks that double the data it
is worth little.

How alpha is spread over the looks is a spending function: K. K. G. Lan and D. L. DeMets, "Discrete sequential
boundaries for clinical trials", 1983. Ours is alpha * t^1.5 after a share t of the data, of the family of K. Kim and
D. L. DeMets, "Design and analysis of group sequential tests based on the type I error spending rate function", 1987;
see C. Jennison and B. W. Turnbull, "Group sequential methods", 2000, section 7.2. Against Pocock's kind it passes 3 to
7 points more of the equal methods that differ in 2 to 5 % of the samples, for 3 % more samples.
"""

from __future__ import annotations

from collections.abc import Sequence

FIRST = 1000
"""Samples of a first look; fewer could show no margin of half a point."""
RATE = 1.5
"""Power of the share of the data that alpha is spent by."""


def look_sizes(most: int, first: int = FIRST) -> list[int]:
    """Samples at each look, doubling up to `most`: 16,000 -> 1000, 2000, 4000, 8000, 16,000. One look where there are
    fewer than 2 * `first`.
    """
    sizes = [most]
    while sizes[0] >= 2 * first:
        sizes.insert(0, -(-sizes[0] // 2))
    return sizes


def look_levels(sizes: Sequence[int], alpha: float) -> list[float]:
    """The level of each look; they add up to alpha."""
    spent = [alpha * (size / sizes[-1]) ** RATE for size in sizes]
    return [now - before for before, now in zip([0.0, *spent], spent)]
