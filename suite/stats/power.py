"""What a paired comparison of a given size can find, and how large it has to be to find it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import binom, norm

from suite.stats.paired import largest_share, paired_share_exceeds

POWER = 0.8
MOST = 10**9  # samples; more than that are as good as never enough


def mcnemar_power(
    difference: float, discordant: float, n: int, alpha: float, two_sided: bool = True, beyond: float = 0.0
) -> float:
    """How often exact McNemar rejects at `alpha` if the second of two methods is right more often by `difference`.

    By enumeration of how often the two may disagree, so exact. difference: of the shares, >= 0. discordant: share of
    samples on which the two disagree, at least `difference`. beyond: how large the difference has to be in the samples,
    too, to be counted.
    """
    if not 0 <= difference <= discordant <= 1:
        raise ValueError(f"a difference of {difference} among {discordant} of the samples is not possible")
    if discordant == 0:
        return 0.0
    count, likely = _disagreements(discordant, n)
    level = alpha / 2 if two_sided else alpha
    # the most wins of the worse method that are still rejected, -1 where no number is
    most = binom.ppf(level, count, 0.5).astype(np.int64)
    most = np.where(binom.cdf(most, count, 0.5) > level, most - 1, most)
    if beyond > 0:
        most = np.minimum(most, np.ceil((count - beyond * n) / 2).astype(np.int64) - 1)
    wins = (discordant - difference) / (2 * discordant)
    return float(np.sum(likely * binom.cdf(most, count, wins)))


def bound_power(win: float, loss: float, n: int, margin: float, alpha: float) -> float:
    """How often the lower bound of a difference of shares lies above -margin, one-sided at 1 - alpha.

    By enumeration as for `mcnemar_power`, so exact. win, loss: shares of samples on which the first method alone, or
    the second alone, is right.
    """
    if not (0 <= win <= 1 and 0 <= loss <= 1 - win):
        raise ValueError(f"wins of {win} and losses of {loss} of the samples are not possible")
    count, likely = _disagreements(win + loss, n)
    least, most = np.full(count.shape, -1), count  # losses with which the bound is still above: -1 where with none
    while (least < most).any():
        middle = (least + most + 1) // 2
        above = paired_share_exceeds(count - middle, middle, n, -margin, alpha)
        least, most = np.where(above, middle, least), np.where(above, most, middle - 1)
    return float(np.sum(likely * binom.cdf(least, count, loss / (win + loss) if win + loss else 0.0)))


def _disagreements(share: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """On how many of n samples two methods may disagree, and with what probability; what is left out is below 1e-15."""
    spread, middle = 9 * math.sqrt(n * share * (1 - share)) + 9, n * share
    count = np.arange(max(0, math.floor(middle - spread)), min(n, math.ceil(middle + spread)) + 1)
    return count, binom.pmf(count, n, share)


def smallest_difference(discordant: float, n: int, alpha: float, two_sided: bool = True, power: float = POWER) -> float:
    """The difference of two shares that exact McNemar finds with probability `power` in n samples; NaN if none is.

    discordant: share of samples on which the two methods disagree anyhow, half of them wins; a larger difference makes
    for more of them.
    """
    low, high = 0.0, 1.0
    if mcnemar_power(1.0, 1.0, n, alpha, two_sided) < power:
        return math.nan
    for _ in range(40):
        middle = (low + high) / 2
        found = mcnemar_power(middle, max(discordant, middle), n, alpha, two_sided)
        low, high = (low, middle) if found >= power else (middle, high)
    return high


def smallest_normal_difference(deviation: float, alpha: float, two_sided: bool = True, power: float = POWER) -> float:
    """The same of any score whose difference has the standard error `deviation`, by the normal distribution."""
    errors: float = norm.isf(alpha / 2 if two_sided else alpha) + norm.ppf(power)
    return errors * deviation


def samples_to_bound(
    wins: float, losses: float, n: int, margin: float, alpha: float, power: float = POWER
) -> int | None:
    """Samples after which the lower bound of a difference of shares lies above -margin with `power` or more.

    If as many of them are wins and losses as now, but for a difference in favour, which is not counted on; the power is
    exact (`bound_power`). None where the difference is as large as the margin already: no number will do.
    """
    win, loss = no_better(wins / n, losses / n)
    if win - loss <= -margin:
        return None
    return _least(lambda count: bound_power(win, loss, count, margin, alpha) >= power)


def samples_to_bound_mean(
    deviation: float, difference: float, n: int, margin: float, alpha: float, at_stake: float, power: float = POWER
) -> int | None:
    """The same of any score, by the normal distribution, and no fewer than `largest_share` of `at_stake` asks for.

    deviation: standard error of the difference over n samples. at_stake: what a sample that fails altogether costs.
    """
    difference = min(difference, 0.0)
    if difference <= -margin:
        return None
    unseen = _least(lambda count: difference - at_stake * float(largest_share(0, count, alpha)) > -margin)
    normal = _normal_samples(deviation, difference + margin, n, norm.isf(alpha) + norm.ppf(power))
    return None if unseen is None or normal is None else max(unseen, normal)


def samples_to_find(
    wins: float, losses: float, n: int, alpha: float, power: float = POWER, beyond: float = 0.0
) -> int | None:
    """Samples in which one-sided exact McNemar finds, with probability `power` or more, a loss such as there is now.

    beyond: how large the loss has to be there, too. None where it is no larger.
    """
    share, difference = (wins + losses) / n, (losses - wins) / n
    if difference <= beyond:
        return None
    return _least(lambda count: mcnemar_power(difference, share, count, alpha, two_sided=False, beyond=beyond) >= power)


def samples_to_find_mean(
    deviation: float, difference: float, n: int, alpha: float, power: float = POWER, beyond: float = 0.0
) -> int | None:
    """The same of any score, by the normal distribution, and no fewer than a `swap_test` must have to reject at all."""
    if difference >= -beyond:
        return None
    found = _normal_samples(deviation, difference, n, norm.isf(alpha) + norm.ppf(power))
    large = _normal_samples(deviation, difference + beyond, n, norm.ppf(power)) if beyond else 0
    return None if found is None or large is None else max(math.ceil(-math.log2(alpha)), found, large)


def samples_to_see(share: float, number: int, power: float = POWER) -> int:
    """Samples among which there are, with probability `power`, at least `number` of those that are a share of all."""
    found = _least(lambda count: binom.sf(number - 1, count, share) >= power)
    if found is None:
        raise ValueError(f"share {share} is so small that more than {MOST} samples would be needed")
    return found


def _normal_samples(deviation: float, distance: float, n: int, errors: float) -> int | None:
    """Samples after which `distance` is so many standard errors, of which `deviation` is one over n samples."""
    needed = n * (errors * deviation / distance) ** 2
    return math.ceil(needed) if needed <= MOST else None


def no_better(wins: float, losses: float) -> tuple[float, float]:
    """Half wins, half losses, where there are more wins."""
    return (wins, losses) if wins <= losses else ((wins + losses) / 2,) * 2


def _least(enough: Callable[[int], bool]) -> int | None:
    """The least number of samples that is enough, if more are always better; None beyond `MOST`."""
    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
