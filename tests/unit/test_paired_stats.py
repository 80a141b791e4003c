"""Promises of the paired statistics, most of them proved by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from suite.stats import (
    bound_power,
    holm,
    largest_share,
    mcnemar,
    mcnemar_power,
    no_better,
    paired_scores,
    paired_share_interval,
    samples_to_bound,
    samples_to_bound_mean,
    samples_to_find,
    samples_to_find_mean,
    smallest_difference,
    smallest_normal_difference,
    swap_test,
)

TRIALS = 20_000


def chance(share: float, trials: int = TRIALS) -> float:
    """Three standard errors of a share that was counted in so many trials."""
    return 3 * math.sqrt(share * (1 - share) / trials)


def counts(n: int, wins: float, losses: float, trials: int = TRIALS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How often either of two methods alone is right, in `trials` sets of n samples."""
    drawn = np.random.default_rng(seed).multinomial(n, [wins, losses, 1 - wins - losses], trials)
    return drawn[:, 0], drawn[:, 1]


# --- equal to statsmodels


def test_mcnemar_is_that_of_statsmodels_on_random_tables():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    draw = np.random.default_rng(1)
    for n in (3, 20, 400):
        for wins, losses in draw.integers(0, n, (40, 2)).tolist():
            expected = tables.mcnemar([[7, wins], [losses, 11]], exact=True).pvalue
            assert float(mcnemar(wins, losses)) == pytest.approx(min(1.0, expected), rel=1e-9), (wins, losses)


def test_holm_is_that_of_statsmodels_on_random_families():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    draw = np.random.default_rng(2)
    for size in (1, 2, 5, 30):
        for _ in range(4):
            values = draw.uniform(size=size) ** 3
            values[draw.integers(size)] = values[0]  # ties too
            assert holm(values) == pytest.approx(multitest.multipletests(values, method="holm")[1])


def test_holm_of_no_test_is_nothing_and_what_is_no_probability_is_refused():
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match="p-values"):
        holm([0.5, 1.5])


# --- shares


@pytest.mark.parametrize(("n", "wins", "losses"), [(1000, 0.03, 0.03), (1000, 0.02, 0.06), (200, 0.05, 0.1)])
def test_the_interval_of_two_shares_holds_the_true_difference_as_often_as_it_says(n, wins, losses):
    low, high = paired_share_interval(*counts(n, wins, losses), n)
    covered = np.mean((low <= wins - losses) & (wins - losses <= high))
    assert covered == pytest.approx(0.95, abs=chance(0.95) + 0.005)  # counts are whole, so it cannot be met exactly


@pytest.mark.parametrize(("n", "share"), [(1000, 0.002), (50, 0.02), (20, 0.1)])
def test_where_disagreements_are_rare_the_interval_holds_the_difference_no_less_often(n, share):
    low, high = paired_share_interval(*counts(n, share / 2, share / 2), n)
    assert np.mean((low <= 0) & (high >= 0)) >= 0.95 - chance(0.95)


def test_the_interval_of_two_that_never_disagree_is_as_wide_as_the_rule_of_three():
    low, high = paired_share_interval(0, 0, 1000, 0.9)
    z2 = norm.isf(0.05) ** 2
    assert (float(low), float(high)) == pytest.approx((-z2 / (1000 + z2), z2 / (1000 + z2)), abs=1e-9)
    assert float(high) == pytest.approx(-math.log(0.05) / 1000, rel=0.1)


@pytest.mark.parametrize(("n", "seen"), [(50, 0), (200, 4), (1000, 9)])
def test_of_the_largest_share_no_more_are_seen_in_one_of_twenty_sets(n, seen):
    share = float(largest_share(seen, n, 0.05))
    assert binom.cdf(seen, n, share) == pytest.approx(0.05)
    assert float(largest_share(n, n, 0.05)) == 1.0


def test_at_an_end_of_the_interval_the_score_is_the_normal_quantile():
    n, wins, losses = 1000, 40, 60
    d = float(paired_share_interval(wins, losses, n)[0])
    loss = np.linspace(0.02, 0.12, 1_000_001)  # the likeliest probability of a loss, found by looking everywhere
    likely = np.full(loss.shape, -np.inf)
    possible = loss + d > 0
    likely[possible] = (
        wins * np.log(loss[possible] + d)
        + losses * np.log(loss[possible])
        + (n - wins - losses) * np.log(1 - 2 * loss[possible] - d)
    )
    best = loss[likely.argmax()]
    assert (wins - losses - n * d) / math.sqrt(n * (2 * best + d - d * d)) == pytest.approx(norm.ppf(0.975), abs=1e-3)


def test_more_samples_give_a_narrower_interval_and_the_two_sides_are_mirrored():
    wide, narrow = paired_share_interval(4, 6, 100), paired_share_interval(40, 60, 1000)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    mirrored = paired_share_interval(6, 4, 100)
    assert (-float(mirrored[1]), -float(mirrored[0])) == pytest.approx((float(wide[0]), float(wide[1])))


@pytest.mark.parametrize(("wins", "losses", "n"), [(-1, 0, 9), (5, 5, 9), (0, 0, 0)])
def test_impossible_counts_are_refused(wins, losses, n):
    with pytest.raises(ValueError, match="counts"):
        paired_share_interval(wins, losses, n)


@pytest.mark.parametrize("n", [30, 1000])
@pytest.mark.parametrize("alternative", ["two-sided", "less"])
def test_mcnemar_errs_between_equals_no_more_often_than_it_says(n, alternative):
    p = mcnemar(*counts(n, 0.05, 0.05), alternative)
    for alpha in (0.01, 0.05, 0.2):
        assert np.mean(p <= alpha) <= alpha + chance(alpha)


# --- means and ratios of sums


def scores(draw: np.random.Generator, n: int) -> np.ndarray:
    """Skewed scores (2, n) of two equally good methods, alike for the same image."""
    return draw.gamma(2.0, size=n) * draw.uniform(0.6, 1.4, size=(2, n))


def areas(draw: np.random.Generator, n: int) -> np.ndarray:
    """Intersection and union (2, n, 2) of two equally good methods, of images that differ much in size."""
    union = draw.gamma(1.5, size=n)
    hit = draw.beta(8, 3, size=(2, n))
    return np.stack([hit * union, np.broadcast_to(union, (2, n))], axis=-1)


def iou(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


@pytest.mark.parametrize("kind", ["mean", "ratio of sums"])
def test_the_interval_of_a_difference_of_scores_holds_zero_as_often_as_it_says(kind):
    draw, n, trials, held = np.random.default_rng(3), 120, 600, 0
    for _ in range(trials):
        if kind == "mean":
            found = paired_scores(*scores(draw, n)[..., None], lambda sums: sums[:, 0] / n)
        else:
            found = paired_scores(*areas(draw, n), iou)
        low, high = found.interval()
        held += low <= 0 <= high
    assert held / trials == pytest.approx(0.95, abs=chance(0.95, trials))


def test_swapping_outcomes_errs_between_equals_no_more_often_than_it_says():
    draw, trials = np.random.default_rng(4), 800
    p = np.array([swap_test(*areas(draw, 40), iou, seed=trial, resamples=199) for trial in range(trials)])
    for alpha in (0.05, 0.2):
        assert np.mean(p <= alpha) == pytest.approx(alpha, abs=chance(alpha, trials))


def test_swapping_right_and_wrong_answers_is_mcnemars_test():
    draw = np.random.default_rng(5)
    new, base = (draw.random((2, 60, 1)) < [[[0.5]], [[0.7]]]).astype(float)
    wins, losses = int((new > base).sum()), int((base > new).sum())
    for alternative in ("two-sided", "less"):
        exact = float(mcnemar(wins, losses, alternative))
        drawn = swap_test(new, base, lambda sums: sums[:, 0] / 60, alternative, resamples=20_000)
        assert drawn == pytest.approx(exact, abs=chance(exact))


def test_what_moves_both_methods_alike_does_not_move_their_difference():
    base = np.random.default_rng(6).gamma(2.0, size=(50, 1))
    found = paired_scores(base + 0.25, base, lambda sums: sums[:, 0] / 50)
    assert found.difference == pytest.approx(0.25)
    assert found.interval() == pytest.approx((0.25, 0.25))
    assert found.lower_bound(0.05) == pytest.approx(0.25)


def test_two_that_differ_on_few_samples_may_be_as_far_apart_as_those_that_were_not_seen_allow():
    base = np.random.default_rng(6).gamma(2.0, size=(200, 1))
    new = base.copy()
    for differing in (0, 4):
        new[:differing] += 0.01
        found = paired_scores(new, base, lambda sums: sums[:, 0] / 200)
        most = found.second * float(largest_share(differing, 200, 0.025))
        assert found.interval() == pytest.approx((-most, most))
        assert found.lower_bound(0.025) == pytest.approx(found.largest_loss(0.025)) == pytest.approx(-most)


def test_what_is_no_pair_is_refused():
    with pytest.raises(ValueError, match="pairs"):
        paired_scores(np.ones((3, 1)), np.ones((4, 1)), iou)
    with pytest.raises(ValueError, match="NaN"):
        swap_test(np.full((3, 1), np.nan), np.ones((3, 1)), iou)


# --- power


@pytest.mark.parametrize(("n", "discordant", "difference"), [(200, 0.2, 0.1), (1000, 0.06, 0.02)])
def test_the_power_of_mcnemar_is_how_often_it_rejects(n, discordant, difference):
    wins, losses = counts(n, (discordant - difference) / 2, (discordant + difference) / 2)
    for two_sided, alternative in ((True, "two-sided"), (False, "less")):
        power = mcnemar_power(difference, discordant, n, 0.05, two_sided)
        assert np.mean(mcnemar(wins, losses, alternative) <= 0.05) == pytest.approx(power, abs=chance(power))


@pytest.mark.parametrize(("n", "discordant"), [(200, 0.1), (1000, 0.0), (5000, 0.06)])
def test_a_difference_as_large_as_stated_is_found_four_times_of_five(n, discordant):
    effect = smallest_difference(discordant, n, 0.05)
    share = max(discordant, effect)
    p = mcnemar(*counts(n, (share - effect) / 2, (share + effect) / 2))
    assert np.mean(p <= 0.05) == pytest.approx(0.8, abs=chance(0.8) + 0.001)


def test_of_six_samples_even_a_total_loss_is_significant_and_of_five_it_is_not():
    assert smallest_difference(0.0, 6, 0.05) < 1.0
    assert math.isnan(smallest_difference(0.0, 5, 0.05))


def test_a_mean_as_far_off_as_stated_is_found_four_times_of_five():
    draw, n = np.random.default_rng(7), 400
    effect = smallest_normal_difference(1 / math.sqrt(n), 0.05)
    z = draw.normal(effect, 1, (5000, n)).mean(axis=1) * math.sqrt(n)
    assert np.mean(np.abs(z) >= norm.isf(0.025)) == pytest.approx(0.8, abs=chance(0.8, 5000))


def test_the_samples_that_are_asked_for_are_enough_and_no_fewer_are():
    needed = samples_to_bound(0, 0, 50, 0.005, 0.05)
    bounds = [float(paired_share_interval(0, 0, n, 0.9)[0]) for n in (needed - 1, needed)]
    assert bounds[0] <= -0.005 < bounds[1]
    assert needed == 539


@pytest.mark.parametrize(("wins", "losses", "margin"), [(3, 3, 0.01), (4, 10, 0.08), (40, 20, 0.02), (0, 1, 0.02)])
def test_so_many_samples_show_that_a_loss_is_within_the_margin_with_the_stated_power_or_more(wins, losses, margin):
    needed = samples_to_bound(wins, losses, 100, margin, 0.05)
    win, loss = no_better(wins / 100, losses / 100)
    power = bound_power(win, loss, needed, margin, 0.05)
    assert 0.8 <= power < 0.83
    low, _ = paired_share_interval(*counts(needed, win, loss), needed, 0.9)
    assert np.mean(low > -margin) == pytest.approx(power, abs=chance(power))


@pytest.mark.parametrize(("wins", "losses", "beyond"), [(4, 10, 0.0), (4, 10, 0.05), (0, 3, 0.02)])
def test_so_many_samples_find_a_loss_that_is_beyond_the_margin_with_the_stated_power_or_more(wins, losses, beyond):
    needed = samples_to_find(wins, losses, 100, 0.05, beyond=beyond)
    difference, discordant = (losses - wins) / 100, (wins + losses) / 100
    power = mcnemar_power(difference, discordant, needed, 0.05, two_sided=False, beyond=beyond)
    assert 0.8 <= power < 0.9
    won, lost = counts(needed, wins / 100, losses / 100)
    found = (mcnemar(won, lost, "less") <= 0.05) & (lost - won > beyond * needed)
    assert np.mean(found) == pytest.approx(power, abs=chance(power))


@pytest.mark.parametrize(("win", "loss"), [(0.6, 0.5), (-0.1, 0.5)])
def test_shares_that_are_none_have_no_power(win, loss):
    with pytest.raises(ValueError, match="not possible"):
        bound_power(win, loss, 100, 0.01, 0.05)


def test_no_number_of_samples_shows_what_is_not_so():
    assert samples_to_bound(10, 30, 1000, 0.005, 0.05) is None
    assert samples_to_bound_mean(0.01, -0.02, 300, 0.01, 0.05, 1.0) is None
    assert samples_to_find(3, 3, 1000, 0.05) is None
    assert samples_to_find_mean(0.01, 0.0, 300, 0.05) is None
    assert (
        samples_to_find(3, 9, 100, 0.05, beyond=0.06) is samples_to_find_mean(0.01, -0.02, 9, 0.05, beyond=0.02) is None
    )


def test_a_lucky_start_is_not_counted_on():
    assert samples_to_bound(30, 10, 1000, 0.005, 0.05) == samples_to_bound(20, 20, 1000, 0.005, 0.05)
