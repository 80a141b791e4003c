"""How near a reduced model's features are to the unreduced model's of the same images: no label is needed.

Source of CKA: S. Kornblith, M. Norouzi, H. Lee and G. Hinton, "Similarity of neural network representations revisited",
ICML 2019, equation 4.
"""

from __future__ import annotations

import numpy as np

from suite.contract.metric import Metric, Need
from suite.stats.aggregates import Mean, MeanOfInfluence
from tasks.features.protocol import Found, Protocol, normalised

UNREDUCED = Need("unreduced", 2, "2 images that the unreduced model has features of, too")
VARYING = Need("varying", 1, "2 images whose features differ")


class Fidelity(Protocol):
    """Cosine of an image's two features, and linear CKA of all of them."""

    name = "fidelity"
    metrics = (
        Metric("cosine", "Cosine ×100", Mean("cosine"), decimals=2, needs=(UNREDUCED,)),
        Metric(
            "cka",
            "CKA ×100",
            MeanOfInfluence("cka_influence"),
            decimals=2,
            bound_to_data=True,
            needs=(UNREDUCED, VARYING),
        ),
    )
    said = "cosine and linear CKA: to the unreduced model's features of the same images"

    def columns(self, found: Found) -> dict[str, np.ndarray]:
        """The cosine, and what a sample adds to CKA."""
        if found.unreduced is None:
            raise ValueError("there are no features of the unreduced model")
        own, theirs = found.samples.features, found.unreduced
        cosine = (normalised(own) * normalised(theirs)).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # of features that do not vary, where it is not read
            return {"cosine": np.clip(cosine, -1, 1), "cka_influence": cka_influence(own, theirs)}


def cka_influence(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) of features (n, C) and (n, D), whose mean is linear CKA, |Y'X|² / (|X'X| |Y'Y|) of both less their means in
    Frobenius norms, and whose spread is that of CKA over samples: see `MeanOfInfluence`.

    NaN where one side does not vary. CKA is above 0 by chance where n is not much larger than C and D. With K = XX',
    L = YY' of centred features it is a / √(b c) for a, b, c the sums of KL, KK and LL over pairs. A sample is in twice
    its row's part of each, so to first order CKA falls by CKA (2 a_i/a - b_i/b - c_i/c) without it.
    """
    together, within_x, within_y = _products(x, y)
    sums = [part.sum() for part in (together, within_x, within_y)]
    score = sums[0] / np.sqrt(sums[1] * sums[2])
    a, b, c = (part / total for part, total in zip((together, within_x, within_y), sums, strict=True))
    influence: np.ndarray = score * (1 + len(x) * (2 * a - b - c))
    return influence


def _products(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows' sums (n,) of K·L, K·K and L·L, from the products of features, for pairs of images are too many."""
    x, y = (values - values.mean(axis=0) for values in (x, y))
    return tuple(((one @ (one.T @ two)) * two).sum(axis=1) for one, two in ((x, y), (x, x), (y, y)))
