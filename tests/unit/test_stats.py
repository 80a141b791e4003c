"""Promises of suite.stats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from suite.stats import paired_agreement, wilson_interval


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
