"""Promises of the jackknife's intervals; how often they hold is measured by `tests.perf.coverage`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t

from suite.stats import jackknife_interval, paired_score_interval, paired_scores, pseudo_values, standard_error
from suite.stats.areas import AREAS
from suite.stats.areas import mean_iou as iou
from suite.stats.captions import corpus_bleu

finite = st.floats(-1e6, 1e6, allow_nan=False)
levels = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


def mean_of(n: int):
    return lambda sums: sums[:, 0] / n


def mean_iou(classes: int):
    return lambda sums: iou(sums.reshape(len(sums), len(AREAS), classes))


@st.composite
def masks(draw, classes: int = 4):
    """Areas (n, 3 * classes) of two methods on the same images, most classes in few of them, one class in all."""
    seed, n = draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 25))
    random = np.random.default_rng(seed)
    labelled = random.integers(1, 50, (n, classes)) * (random.random((n, classes)) < [1, 0.3, 0.1, 0.05])
    sides = []
    for _ in range(2):
        hit = np.rint(labelled * random.random((n, classes)))
        said = hit + random.integers(0, 20, (n, classes)) * (random.random((n, classes)) < 0.1)
        sides.append(np.stack([hit, said, labelled], axis=1).reshape(n, -1))
    return sides


# --- an interval holds its score


@given(arrays(float, st.integers(2, 60), elements=finite), levels)
@settings(max_examples=300, deadline=None)
def test_the_interval_of_a_mean_always_holds_it(values, level):
    score, pseudo = pseudo_values(values[:, None], mean_of(len(values)))
    low, high = jackknife_interval(score, pseudo, level)
    assert low <= score <= high


@given(masks(), levels)
@settings(max_examples=60, deadline=None)
def test_the_interval_of_a_mean_over_classes_always_holds_it_alone_and_as_a_difference(sides, level):
    for side in sides:
        score, pseudo = pseudo_values(side, mean_iou(4))
        low, high = jackknife_interval(score, pseudo, level)
        assert low <= score <= high
    found = paired_scores(*sides, mean_iou(4))
    low, high = found.interval(level)
    assert low <= found.difference <= high
    assert found.lower_bound(0.05) <= found.difference


@given(arrays(np.int64, st.tuples(st.integers(2, 30), st.just(10)), elements=st.integers(1, 20)), levels)
@settings(max_examples=60, deadline=None)
def test_the_interval_of_a_corpus_score_always_holds_it(counts, level):
    def bleu(sums):
        return corpus_bleu(sums)[:, 3]

    score, pseudo = pseudo_values(counts, bleu)
    low, high = jackknife_interval(score, pseudo, level)
    assert low <= score <= high


# --- what pseudo-values and errors are


def test_pseudo_values_of_a_mean_are_the_values_and_their_error_is_that_of_the_mean():
    values = np.random.default_rng(0).gamma(2.0, size=50)
    score, pseudo = pseudo_values(values[:, None], mean_of(50))
    assert score == pytest.approx(values.mean())
    assert pseudo == pytest.approx(values)
    assert standard_error(pseudo) == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_the_error_of_a_ratio_of_sums_is_how_far_it_moves_between_sets_of_samples():
    draw, errors, ratios = np.random.default_rng(1), [], []

    def ratio(sums):
        return sums[:, 0] / sums[:, 1]

    for _ in range(400):
        size = draw.gamma(1.5, size=80)
        score, pseudo = pseudo_values(np.stack([size * draw.beta(8, 3, 80), size], axis=1), ratio)
        ratios.append(score)
        errors.append(standard_error(pseudo))
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.1)  # three standard errors of a deviation of 400


def test_of_many_normal_values_the_interval_is_students():
    values = np.random.default_rng(2).normal(size=4000)
    low, high = jackknife_interval(values.mean(), values)
    half = t.ppf(0.975, 3999) * values.std(ddof=1) / math.sqrt(4000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_the_interval_reaches_further_to_the_side_of_rare_large_values_and_is_mirrored_with_them():
    values = np.zeros(200)
    values[:12] = np.linspace(0.1, 3.0, 12)
    low, high = jackknife_interval(values.mean(), values)
    assert high - values.mean() > 1.3 * (values.mean() - low)
    assert jackknife_interval(-values.mean(), -values) == pytest.approx((-high, -low))


def test_intervals_of_many_scores_are_those_of_each_and_follow_the_unit():
    pseudo = np.random.default_rng(3).exponential(size=(3, 40))
    low, high = jackknife_interval(pseudo.mean(axis=1), pseudo, 0.9)
    for place, row in enumerate(pseudo):
        alone = jackknife_interval(row.mean(), row, 0.9)
        assert (low[place], high[place]) == pytest.approx(alone)
        assert jackknife_interval(100 * row.mean(), 100 * row, 0.9) == pytest.approx(tuple(100 * np.array(alone)))


def test_one_sample_says_nothing_of_how_far_others_would_be():
    score, pseudo = pseudo_values([[0.5]], mean_of(1))
    assert score == 0.5
    assert np.isnan(jackknife_interval(score, pseudo)).all()


def test_samples_without_any_of_which_there_is_no_score_leave_the_interval_open():
    only = np.array([[3.0, 4.0, 5.0], [0.0, 0.0, 0.0]])  # the second image is not labelled
    score, pseudo = pseudo_values(only, mean_iou(1))
    assert score == 0.5
    assert np.isnan(jackknife_interval(score, pseudo)).all()


@pytest.mark.parametrize("values", [[1.0, 2.0], np.empty((0, 2)), [[math.nan]], [[math.inf]]])
def test_values_that_are_no_rows_of_numbers_are_refused(values):
    with pytest.raises(ValueError, match="values"):
        pseudo_values(values, mean_of(2))


def test_an_impossible_level_is_refused():
    with pytest.raises(ValueError, match="level"):
        jackknife_interval(0.5, np.ones(3), level=95)


# --- how often an interval holds the truth


@pytest.mark.parametrize(("n", "differ"), [(200, 0.05), (1000, 0.02), (1000, 0.05)])
def test_where_few_samples_differ_the_interval_holds_the_true_difference_as_often_as_it_says(n, differ):
    draw, trials = np.random.default_rng(4), 1500
    pseudo = draw.normal(-0.6, 1.2, (trials, n)) * (draw.random((trials, n)) < differ)
    count, truth = (pseudo != 0).sum(axis=1), -0.6 * differ
    low, high = paired_score_interval(pseudo.mean(axis=1), pseudo, count, 4.0)
    assert np.mean((low <= truth) & (truth <= high)) >= 0.94
    low, _ = paired_score_interval(pseudo.mean(axis=1), pseudo, count, 4.0, 0.9)
    assert np.mean(low > truth) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
