"""Distances between sets of features."""

import numpy as np
import pytest
import scipy.linalg

from suite.stats.sets import frechet_values, kernel_values, moments


def frechet_distance(first, second):
    return frechet_values(first, moments(second)).mean()


def kernel_distance(first, second):
    return kernel_values(first, second).mean()


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
    own, its = moments(features), moments(other)
    a, b = own.covariance, its.covariance
    root = scipy.linalg.sqrtm(a @ b).real
    expected = ((own.mean - its.mean) ** 2).sum() + np.trace(a + b - 2 * root)
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


@pytest.mark.parametrize("width", [3, 80])
def test_what_a_sample_makes_of_a_distance_is_what_leaving_it_out_changes(width):
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=(400, width)) * np.linspace(0.5, 2, width) + 0.3, rng.normal(size=(500, width))
    for distance, values in (
        (frechet_distance, frechet_values(own, moments(other))),
        (kernel_distance, kernel_values(own, other)),
    ):
        whole = distance(own, other)
        assert values.mean() == pytest.approx(whole)
        lost = [len(own) * (whole - distance(np.delete(own, i, axis=0), other)) for i in range(0, 400, 40)]
        found = values[::40] - whole
        assert np.corrcoef(lost, found)[0, 1] > 0.99
        assert np.std(found) == pytest.approx(np.std(lost), rel=0.15)


def test_a_singular_covariance_leaves_influences_finite(features):
    few, other = features[:6], np.random.default_rng(1).normal(size=(40, 8)) + 1
    values = frechet_values(few, moments(other))
    assert np.isfinite(values).all()
    assert values.mean() == pytest.approx(frechet_distance(few, other))
