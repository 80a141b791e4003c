"""How far one method is from another in one metric, what chance would make of that, and what could have been seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from suite.contract.metric import Metric
from suite.gate.outcomes import Paired
from suite.stats import (
    bound_power,
    largest_share,
    mcnemar,
    mcnemar_power,
    no_better,
    paired_scores,
    paired_share_interval,
    resamples_for,
    samples_to_bound,
    samples_to_bound_mean,
    samples_to_find,
    samples_to_find_mean,
    smallest_difference,
    smallest_normal_difference,
    swap_test,
)


@dataclass(frozen=True)
class PairedDifference:
    """NEW against BASE on the same samples, in the unit that the metric is stored in.

    difference: NEW - BASE, within low..high at 95 %. gain: how much better NEW is. bound: the least
    gain that there may be, one-sided at 1 - alpha. p, worse: p-values of any difference and of NEW being worse.
    differing: samples whose outcomes are not the same. deviation: the difference's standard error. wins, losses:
    samples that NEW alone, or BASE alone, has right; None where outcomes are more than right or wrong. thin: why the
    samples are no ground for a verdict, or "", and then `bound` is what the worst would be; least: how many samples
    would be one.

    The p-values are about this data set: that it makes no difference to it which method an outcome is from. Interval
    and bound are about the population that the samples were drawn from.
    """

    metric: Metric
    samples: int
    new: float
    base: float
    difference: float
    low: float
    high: float
    bound: float
    p: float
    worse: float
    differing: int
    deviation: float
    wins: int | None = None
    losses: int | None = None
    thin: str = ""
    least: int = 0

    @property
    def gain(self) -> float:
        """By how much NEW is better."""
        return self.metric.sign * self.difference

    @property
    def at_stake(self) -> float:
        """By how much samples that all fail would be worse than BASE."""
        return abs(self.base - self.metric.worst)

    def detectable(self, alpha: float) -> float | None:
        """The smallest difference that four of five such comparisons would find significant at `alpha`, if any."""
        found: float
        if self.wins is None or self.losses is None:
            found = smallest_normal_difference(self.deviation, alpha)
            unseen = self.at_stake * float(largest_share(0, self.samples, alpha))
            found = np.maximum(found, unseen)  # NaN for one sample
        else:
            found = smallest_difference((self.wins + self.losses) / self.samples, self.samples, alpha)
        return float(found) if np.isfinite(found) else None

    def needed_to_bound(self, margin: float, alpha: float) -> int | None:
        """Samples that would show NEW to be worse by less than `margin`, if it is what it seems; None: no number."""
        if self.wins is not None and self.losses is not None:
            return samples_to_bound(self.wins, self.losses, self.samples, margin, alpha)
        needed = samples_to_bound_mean(self.deviation, self.gain, self.samples, margin, alpha, self.at_stake)
        return needed and max(needed, self.least)

    def needed_to_find(self, alpha: float, margin: float = 0.0) -> int | None:
        """Samples in which the loss that there seems to be would be significant at `alpha` and beyond the margin; None:
        there is none.
        """
        if self.wins is not None and self.losses is not None:
            return samples_to_find(self.wins, self.losses, self.samples, alpha, beyond=margin)
        needed = samples_to_find_mean(self.deviation, self.gain, self.samples, alpha, beyond=margin)
        return needed and max(needed, self.least)

    def chance_to_bound(self, samples: int, margin: float, alpha: float) -> float | None:
        """Exact probability of what `needed_to_bound` plans, in so many samples; None of scores: it is not known."""
        if (shares := self._shares()) is None:
            return None
        win, loss = no_better(*shares)
        return bound_power(win, loss, samples, margin, alpha)

    def chance_to_find(self, samples: int, alpha: float, margin: float = 0.0) -> float | None:
        """Exact probability of what `needed_to_find` plans, in so many samples; None of scores: it is not known."""
        if (shares := self._shares()) is None:
            return None
        win, loss = shares
        return mcnemar_power(loss - win, win + loss, samples, alpha, two_sided=False, beyond=margin)

    def _shares(self) -> tuple[float, float] | None:
        if self.wins is None or self.losses is None:
            return None
        return self.wins / self.samples, self.losses / self.samples


def measure_difference(pair: Paired, alpha: float, tests: int = 1) -> PairedDifference:
    """Shares of right answers: exact McNemar and Tango's interval; other scores: outcomes swapped, and the jackknife.

    alpha: of the one-sided bound. tests: for how many its p-values will be adjusted.
    """
    return _of_shares(pair, alpha) if pair.binary else _of_sums(pair, alpha, tests)


def _of_shares(pair: Paired, alpha: float) -> PairedDifference:
    new, base, n = pair.new[:, 0] > 0, pair.base[:, 0] > 0, pair.samples
    wins, losses = int(np.count_nonzero(new & ~base)), int(np.count_nonzero(base & ~new))
    low, high = paired_share_interval(wins, losses, n)
    difference = (wins - losses) / n
    return PairedDifference(
        **_common(pair), new=float(new.mean()), base=float(base.mean()), difference=difference, low=float(low),
        high=float(high), bound=float(paired_share_interval(wins, losses, n, 1 - 2 * alpha)[0]),
        p=float(mcnemar(wins, losses)), worse=float(mcnemar(wins, losses, "less")),
        deviation=float(np.sqrt(((wins + losses) / n - difference**2) / n)),
        wins=wins, losses=losses,
    )  # fmt: skip


def _of_sums(pair: Paired, alpha: float, tests: int) -> PairedDifference:
    sign = pair.metric.sign
    sides, resamples = (pair.new, pair.base, lambda sums: sign * pair.statistic(sums)), resamples_for(alpha, tests)
    found = paired_scores(*sides, sign * pair.metric.worst)
    low, high = sorted(sign * end for end in found.interval())
    bound = found.lower_bound(alpha)
    return PairedDifference(
        **_common(pair), new=sign * found.first, base=sign * found.second, difference=sign * found.difference,
        low=low, high=high,
        bound=min(bound, found.largest_loss(alpha)) if pair.thin else bound, p=swap_test(*sides, resamples=resamples),
        worse=swap_test(*sides, "less", resamples=resamples), deviation=found.deviation, thin=pair.thin,
        least=pair.least,
    )  # fmt: skip


def _common(pair: Paired) -> dict[str, Any]:
    return {"metric": pair.metric, "samples": pair.samples, "differing": pair.differing}
