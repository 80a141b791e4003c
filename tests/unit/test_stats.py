"""Promises of suite.stats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from suite.stats import (
    bootstrap_sums,
    mean_interval,
    paired_agreement,
    percentile_interval,
    wilson_interval,
)


def closed_form(successes: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's formula as printed in textbooks, written out independently of scipy's implementation."""
    z = norm.ppf(0.5 + level / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def test_the_wilson_interval_of_8_of_10_is_the_value_of_the_textbooks():
    assert wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


@pytest.mark.parametrize(("successes", "n", "level"), [(1, 3, 0.95), (500, 1000, 0.95), (40123, 50000, 0.99)])
def test_the_wilson_interval_equals_its_closed_form(successes, n, level):
    assert wilson_interval(successes, n, level) == pytest.approx(closed_form(successes, n, level), abs=1e-12)


def test_the_interval_of_a_perfect_score_still_has_a_width():
    low, high = wilson_interval(100, 100)
    assert high == 1.0
    assert low == pytest.approx(0.9630, abs=1e-4)


def test_the_interval_of_no_success_at_all_starts_at_zero():
    low, high = wilson_interval(0, 100)
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(0.0370, abs=1e-4)


def test_no_samples_give_no_interval():
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2), (1, 0)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="within 0"):
        wilson_interval(successes, n)


def test_an_impossible_level_is_refused():
    with pytest.raises(ValueError, match="level"):
        wilson_interval(1, 2, level=95)


def test_agreement_counts_equal_predictions_pair_by_pair():
    assert paired_agreement([1, 2, 3, 4], np.array([1, 2, 0, 4])) == (3, 4)


def test_agreement_of_no_samples_is_zero_of_zero():
    assert paired_agreement([], []) == (0, 0)


def test_predictions_that_are_not_pairs_are_refused():
    with pytest.raises(ValueError, match="not pairs"):
        paired_agreement([1, 2], [1, 2, 3])


def test_a_bootstrap_sum_is_the_sum_over_the_samples_that_were_drawn():
    values = np.arange(12.0).reshape(6, 2) ** 2
    draw = np.random.default_rng(3)
    drawn = [values[draw.integers(0, 6, 6)].sum(axis=0) for _ in range(5)]
    assert bootstrap_sums(values, seed=3, resamples=5).tolist() == np.array(drawn).tolist()


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution_for_many_samples():
    values = np.random.default_rng(1).exponential(size=4000)
    low, high = mean_interval(values)
    half = norm.ppf(0.975) * values.std() / math.sqrt(4000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)


def test_the_interval_of_a_mean_holds_the_true_mean_as_often_as_it_says():
    draw, trials = np.random.default_rng(2), 2000
    found = [mean_interval(values) for values in draw.gamma(2.0, size=(trials, 100))]
    share = np.mean([low <= 2.0 <= high for low, high in found])
    assert share == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / trials))


def test_a_higher_level_gives_a_wider_interval():
    values = np.random.default_rng(0).normal(size=50)
    (low95, high95), (low99, high99) = (mean_interval(values, level=level) for level in (0.95, 0.99))
    assert low99 < low95 < high95 < high99


def test_equal_values_have_an_interval_without_width_and_fewer_than_two_have_none():
    assert mean_interval([0.25] * 7) == (0.25, 0.25)
    assert mean_interval([0.25]) is mean_interval([]) is None


@pytest.mark.parametrize("values", [[1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_values_that_have_no_mean_are_refused(values):
    with pytest.raises(ValueError, match="values"):
        mean_interval(values)


def test_sums_of_nothing_are_refused():
    with pytest.raises(ValueError, match="rows"):
        bootstrap_sums(np.empty((0, 2)))


def test_a_percentile_interval_leaves_the_same_share_out_at_both_ends():
    assert percentile_interval(np.arange(101.0), level=0.9) == pytest.approx((5.0, 95.0))
    with pytest.raises(ValueError, match="level"):
        percentile_interval([1.0], level=95)
