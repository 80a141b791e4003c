"""Distances between sets of features."""

import numpy as np
import pytest
import scipy.linalg

from suite.stats.sets import frechet_distance, kernel_distance, moments


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(60, 8))


def test_a_set_is_no_distance_from_itself_and_a_shift_is_its_length(features):
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features + np.arange(8)) == pytest.approx(140)


def test_turning_both_sets_changes_nothing(features):
    other = 2 * np.random.default_rng(1).normal(size=(40, 8)) + 1
    turned, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))
    assert frechet_distance(features @ turned, other @ turned) == pytest.approx(frechet_distance(features, other))


def test_it_is_what_a_matrix_square_root_gives(features):
    other = np.random.default_rng(1).normal(size=(40, 8)) @ np.diag(np.arange(1, 9))
    (mean, a), (other_mean, b) = moments(features), moments(other)
    root = scipy.linalg.sqrtm(a @ b).real
    expected = ((mean - other_mean) ** 2).sum() + np.trace(a + b - 2 * root)
    assert frechet_distance(features, other) == pytest.approx(expected, rel=1e-6)


def test_two_samples_give_a_number_and_one_does_not(features):
    assert np.isfinite(frechet_distance(features[:2], features))
    assert np.isfinite(kernel_distance(features[:2], features))
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="two samples"):
            distance(features[:1], features)


def test_the_kernel_distance_of_one_distribution_is_nought_on_average():
    rng = np.random.default_rng(0)
    found = [kernel_distance(rng.normal(size=(50, 8)), rng.normal(size=(30, 8))) for _ in range(40)]
    assert abs(np.mean(found)) < 2 * np.std(found) / np.sqrt(40) + 0.01
    assert kernel_distance(rng.normal(size=(50, 8)), rng.normal(size=(30, 8)) + 2) > 10 * max(map(abs, found))
