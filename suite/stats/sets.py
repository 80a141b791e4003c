"""Distances between two sets of features, which say how alike the pictures are that they were taken of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]  # (n, d)
SINGULAR = 1e-10  # eigenvalues below this part of the largest are rounding


@dataclass(frozen=True)
class Moments:
    """Of a set of features: mean (d,) and unbiased covariance (d, d)."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @cached_property
    def root(self) -> NDArray[np.float64]:
        """Of the covariance, symmetric."""
        return symmetric_root(self.covariance)


def frechet_values(features: Features, other: Moments) -> NDArray[np.float64]:
    """(n,) what each sample makes of the Fréchet distance to `other`: their mean is the distance.

    That is of normal distributions with the sets' means and unbiased covariances (Heusel et al., NeurIPS 2017):
    ||m - m'||² + tr(S + S' - 2 (S'^½ S S'^½)^½), by symmetric eigendecompositions whose eigenvalues are clipped at 0,
    so that it stays real where a covariance is singular. It falls with the number of samples: sets of one distribution
    are not 0 apart.

    A value is the distance plus n times what it would lose without the sample, to first order (the infinitesimal
    jackknife): with d = x - m that is 2 (m - m')·d + |d|² - dᵀ A d less its mean, where A = S'^½ (S'^½ S S'^½)^-½ S'^½
    takes one normal distribution to the other. Where S is singular, no sample leaves its range, and neither does A.
    ValueError for fewer than two samples.
    """
    own, root = moments(features), other.root
    values, vectors = np.linalg.eigh(root @ own.covariance @ root)
    values = values.clip(min=0)
    shift, apart = own.mean - other.mean, features - own.mean
    distance = shift @ shift + np.trace(own.covariance) + np.trace(other.covariance) - 2 * np.sqrt(values).sum()
    known = values > SINGULAR * values.max(initial=0)
    turned = apart @ root @ vectors[:, known] / values[known] ** 0.25
    moved = 2 * apart @ shift + (apart**2).sum(axis=1) - (turned**2).sum(axis=1)
    influence: NDArray[np.float64] = distance + moved - moved.mean()
    return influence


def moments(features: Features) -> Moments:
    """ValueError for fewer than two samples."""
    if len(features) < 2:
        raise ValueError("a covariance needs two samples; give more")
    centred = features - (mean := features.mean(axis=0))
    return Moments(mean, centred.T @ centred / (len(features) - 1))


def symmetric_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The square root of a symmetric matrix without negative eigenvalues but for rounding."""
    values, vectors = np.linalg.eigh(matrix)
    root: NDArray[np.float64] = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def kernel_values(first: Features, second: Features) -> NDArray[np.float64]:
    """(n,) what each sample of the first set makes of the kernel distance: their mean is the distance.

    That is the unbiased squared maximum mean discrepancy with the kernel (a·b / d + 1)³ (Binkowski et al., ICLR 2018):
    0 on average for sets of one distribution of any size, so it may be negative.

    A value is the distance plus twice how far the sample's mean kernel to the others of its set, less that to the
    other set, is from their mean: what leaving it out changes, to first order. ValueError for sets of fewer than two.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("an unbiased mean of pairs needs two samples; give more")

    def kernel(a: Features, b: Features) -> NDArray[np.float64]:
        product: NDArray[np.float64] = (a @ b.T / a.shape[1] + 1) ** 3
        return product

    def to_others(x: Features) -> NDArray[np.float64]:
        products = kernel(x, x)
        mean: NDArray[np.float64] = (products.sum(axis=1) - np.diagonal(products)) / (len(x) - 1)
        return mean

    within, across = to_others(first), kernel(first, second).mean(axis=1)
    distance = within.mean() + to_others(second).mean() - 2 * across.mean()
    pull = within - across
    found: NDArray[np.float64] = distance + 2 * (pull - pull.mean())
    return found
