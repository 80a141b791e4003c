"""Distances between two sets of features, which say how alike the pictures are that they were taken of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]  # (n, d)


def frechet_distance(first: Features, second: Features) -> float:
    """Of normal distributions with the sets' means and unbiased covariances (Heusel et al., NeurIPS 2017).

    ||m - m'||² + tr(S + S' - 2 (S^½ S' S^½)^½), by two symmetric eigendecompositions whose eigenvalues are clipped at
    0, so that it stays real where a covariance is singular. It falls with the number of samples: sets of one
    distribution are not 0 apart. ValueError for sets of fewer than two.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a covariance needs two samples; give more")
    (mean, covariance), (other_mean, other) = moments(first), moments(second)
    root = symmetric_root(covariance)
    shift, mixed = mean - other_mean, np.linalg.eigvalsh(root @ other @ root).clip(min=0)
    return float(shift @ shift + np.trace(covariance) + np.trace(other) - 2 * np.sqrt(mixed).sum())


def moments(features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (d,) and unbiased covariance (d, d)."""
    centred = features - (mean := features.mean(axis=0))
    return mean, centred.T @ centred / (len(features) - 1)


def symmetric_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The square root of a symmetric matrix without negative eigenvalues but for rounding."""
    values, vectors = np.linalg.eigh(matrix)
    root: NDArray[np.float64] = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def kernel_distance(first: Features, second: Features) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (a·b / d + 1)³ (Binkowski et al., ICLR 2018).

    0 on average for sets of one distribution of any size, so it may be negative. ValueError for sets of fewer than two.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("an unbiased mean of pairs needs two samples; give more")

    def kernel(a: Features, b: Features) -> NDArray[np.float64]:
        product: NDArray[np.float64] = (a @ b.T / a.shape[1] + 1) ** 3
        return product

    def of_pairs(x: Features) -> float:
        products = kernel(x, x)
        return float((products.sum() - np.trace(products)) / (len(x) * (len(x) - 1)))

    return of_pairs(first) + of_pairs(second) - 2 * float(kernel(first, second).mean())
