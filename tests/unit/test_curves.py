"""Promises of suite.stats.curves: hand-made curves give the exact numbers, and intervals cover the true ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from scipy.stats import kendalltau

from suite.stats import bootstrap_sums, percentile_interval
from suite.stats.curves import concordance, hypervolume, mean_cost_change, mean_gain, rising, shared

COST = np.array([1.0, 2.0, 3.0, 4.0])
LINE = np.array([70.0, 75.0, 80.0, 85.0])


def random_curve(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return draw.uniform(1, 5, 5), draw.uniform(60, 90, 5)


def test_a_line_five_above_another_gains_five_at_every_cost():
    assert mean_gain(COST, LINE + 5, COST, LINE) == pytest.approx(5.0, abs=1e-12)


def test_crossing_lines_gain_what_the_areas_between_them_come_to():
    # 70..90 against 80..80 over costs 1..3: −5 on the first half, +5 on the second
    assert mean_gain([1, 3], [70, 90], [1, 3], [80, 80]) == pytest.approx(0.0, abs=1e-12)
    # over 1..2 alone, where the flat curve ends: −10 to 0
    assert mean_gain([1, 3], [70, 90], [1, 2], [80, 80]) == pytest.approx(-5.0, abs=1e-12)


def test_a_curve_at_twice_the_cost_costs_twice_as_much_at_equal_score():
    assert mean_cost_change(2 * COST, LINE, COST, LINE) == pytest.approx(1.0, abs=1e-12)
    assert mean_cost_change(COST, LINE, 2 * COST, LINE) == pytest.approx(-0.5, abs=1e-12)


def test_two_lines_differ_in_cost_by_the_integral_of_their_log_ratio():
    # score 70 to 80 costs 1 to 2 on one line and 3 throughout on the other: mean log = (2 log 2 − 1) − log 3
    other = mean_cost_change([1, 2], [70, 80], [3, 3 + 1e-12], [70, 80])
    assert other == pytest.approx(np.exp(2 * np.log(2) - 1 - np.log(3)) - 1, rel=1e-9)


def test_only_what_both_curves_span_is_averaged_and_nothing_beyond():
    low, high = shared([1.0, 3.0], [2.0, 9.0])
    assert (low, high) == (2.0, 3.0)
    far = mean_gain([1, 2, 3], [0, 50, 60], [2, 3, 9], [40, 50, 1000])
    assert far == pytest.approx(10.0, abs=1e-12)


@pytest.mark.parametrize("points", [([1.0], [70.0]), ([5.0, 6.0], [70.0, 80.0]), ([1.0, 2.0], [95.0, 99.0])])
def test_curves_that_share_nothing_have_no_mean(points):
    gain = mean_gain(*points, COST, LINE)
    change = mean_cost_change(*points, COST, LINE)
    assert np.isnan(gain) or np.isnan(change)
    assert np.isnan(mean_gain([1.0], [70.0], COST, LINE))


def test_swapping_the_curves_changes_the_sign_of_the_gain_and_inverts_the_ratio_of_costs():
    draw = np.random.default_rng(0)
    for _ in range(50):
        one, two = random_curve(draw), random_curve(draw)
        assert mean_gain(*one, *two) == pytest.approx(-mean_gain(*two, *one), nan_ok=True, abs=1e-9)
        there, back = 1 + mean_cost_change(*one, *two), 1 + mean_cost_change(*two, *one)
        assert there == pytest.approx(1 / back, nan_ok=True)


def test_means_are_those_of_a_fine_grid():
    draw = np.random.default_rng(1)
    cost, score, other_cost, other_score = map(np.sort, (*random_curve(draw), *random_curve(draw)))
    other_cost, other_score = other_cost * 1.3, other_score + 2
    low, high = shared(cost, other_cost)
    at = np.linspace(low, high, 200_001)
    expected = (np.interp(at, cost, score) - np.interp(at, other_cost, other_score)).mean()
    assert mean_gain(cost, score, other_cost, other_score) == pytest.approx(expected, abs=1e-4)
    low, high = shared(score, other_score)
    at = np.linspace(low, high, 200_001)
    ratio = np.log(np.interp(at, score, cost) / np.interp(at, other_score, other_cost)).mean()
    assert mean_cost_change(cost, score, other_cost, other_score) == pytest.approx(np.expm1(ratio), abs=1e-4)


def test_many_resamples_at_once_give_what_each_of_them_gives_alone():
    draw = np.random.default_rng(2)
    scores, others, costs = (draw.uniform(60, 90, (20, 4)) for _ in range(3))
    for function in (mean_gain, mean_cost_change):
        together = function(COST, scores, costs, others)
        alone = [function(COST, s, c, o) for s, c, o in zip(scores, costs, others)]
        np.testing.assert_allclose(together, alone, rtol=1e-12)
    np.testing.assert_allclose(hypervolume(COST, scores, 5.0), [hypervolume(COST, s, 5.0) for s in scores])


def test_the_nearest_rising_sequence_is_that_of_isotonic_regression():
    draw = np.random.default_rng(3)
    values = draw.normal(size=(40, 7))
    np.testing.assert_allclose(rising(values), [isotonic_regression(row).x for row in values], atol=1e-12)


def test_a_fall_is_levelled_to_the_mean_of_its_two_sides():
    np.testing.assert_allclose(rising([70.0, 80.0, 78.0, 90.0]), [70.0, 79.0, 79.0, 90.0])


def test_the_hypervolume_adds_up_the_steps_up_to_the_reference_point():
    # 70 is affordable from 1 to 3, 90 from 3 to 4; the point at 2 is beaten, that at 6 lies beyond the limit
    assert hypervolume([3, 1, 2, 6], [90, 70, 60, 95], limit=4.0) == pytest.approx(2 * 70 + 90)
    assert hypervolume([3, 1], [90, 70], limit=4.0, floor=80.0) == pytest.approx(10)
    assert hypervolume([5.0], [90.0], limit=4.0) == 0


def test_the_concordance_of_two_rankings_is_kendalls_tau():
    draw = np.random.default_rng(4)
    for _ in range(20):
        one, two = draw.permutation(7), draw.permutation(7)
        pairs = [np.subtract.outer(ranks, ranks) for ranks in (one, two)]
        assert concordance(*pairs) == pytest.approx(kendalltau(one, two).statistic)


def test_pairs_that_were_not_compared_say_nothing_of_the_order():
    one = np.array([[0, 1, np.nan], [-1, 0, 1], [np.nan, -1, 0]])
    assert concordance(one, np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])) == 1.0
    assert np.isnan(concordance(np.full((2, 2), np.nan), one[:2, :2]))


@pytest.mark.parametrize(("cost", "score"), [([], []), ([0.0, 1.0], [70, 80]), ([1.0, 2.0], [np.nan, 80])])
def test_points_that_mean_nothing_are_refused(cost, score):
    with pytest.raises(ValueError, match="curve"):
        hypervolume(cost, score, 3.0)


def test_intervals_from_resampled_samples_cover_the_true_means_as_often_as_they_say():
    """200 data sets of two methods that share their samples: each sample is as hard for one method as for the other."""
    draw, samples, resamples = np.random.default_rng(5), 200, 200
    one, two = np.array([0.62, 0.75, 0.83, 0.87]), np.array([0.55, 0.70, 0.80, 0.85])
    other_cost = COST * 1.05
    true = (mean_gain(COST, one, other_cost, two), mean_cost_change(COST, one, other_cost, two))
    covered = np.zeros(2)
    for _ in range(200):
        hard = draw.uniform(size=(samples, 1))
        luck = np.where(draw.uniform(size=(samples, 8)) < 0.7, hard, draw.uniform(size=(samples, 8)))
        means = bootstrap_sums(luck < np.concatenate([one, two]), seed=1, resamples=resamples) / samples
        curves = (COST, means[:, :4], other_cost, means[:, 4:])
        for i, function in enumerate((mean_gain, mean_cost_change)):
            low, high = percentile_interval(function(*curves))
            covered[i] += low <= true[i] <= high
    assert (covered / 200 >= 0.91).all(), covered
    assert (covered / 200 <= 0.985).all(), covered
