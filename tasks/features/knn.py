"""Classes by the nearest training images: nothing is fitted, so what is lost is lost by the features.

Sources: Z. Wu, Y. Xiong, S. Yu and D. Lin, "Unsupervised feature learning via non-parametric instance discrimination",
CVPR 2018, for the weighting; M. Caron et al., "Emerging properties in self-supervised vision transformers" (DINO), ICCV
2021, for k = 10, 20 and the temperature.
"""

from __future__ import annotations

import numpy as np

from suite.contract.metric import Metric, Need
from suite.stats.aggregates import Share
from tasks.features.protocol import Found, Protocol, normalised

NEIGHBOURS = (20, 10)
TEMPERATURE = 0.07
AT_ONCE = 2**26  # similarities that are held: 512 MiB
BANK = Need("bank", 1, "1 training image (--task-option bank=FOLDER)")
SAMPLE = Need("samples", 1, "1 sample")


class NearestNeighbours(Protocol):
    """The k training images of the largest cosine vote for their classes with exp(cosine / 0.07)."""

    name = "knn"
    metrics = tuple(Metric(f"knn{k}", f"kNN-{k} (%)", Share(f"knn{k}"), needs=(SAMPLE, BANK)) for k in NEIGHBOURS)
    said = f"kNN: cosine, weights exp(cosine / {TEMPERATURE})"

    def columns(self, found: Found) -> dict[str, np.ndarray]:
        """Whether the class with the most votes is right, for each k."""
        nearest, cosines = nearest_images(found.samples.features, found.bank.features, max(NEIGHBOURS))
        classes = found.bank.labels[nearest, 0]
        voted = {k: vote(classes[:, :k], cosines[:, :k]) for k in NEIGHBOURS}
        return {f"knn{k}": found.samples.is_right(classes[:, None])[:, 0] for k, classes in voted.items()}


def nearest_images(features: np.ndarray, bank: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places in the bank and cosines (n, min(count, size of the bank)), nearest first; of equal ones, the first."""
    bank, count = normalised(bank), min(count, len(bank))
    step, nearest, cosines = max(1, AT_ONCE // len(bank)), [], []
    for begin in range(0, len(features), step):
        cosine = normalised(features[begin : begin + step]) @ bank.T
        places = _largest(cosine, count)
        nearest.append(places)
        cosines.append(np.take_along_axis(cosine, places, axis=1))
    return np.concatenate(nearest), np.concatenate(cosines)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places (n, count) of the largest of each row, in order; of equal ones those that come first."""
    least = np.partition(values, values.shape[1] - count, axis=1)[:, -count][:, None]
    found = np.empty((len(values), count), dtype=np.int64)
    for row, (own, least_own) in enumerate(zip(values, least, strict=True)):
        (among,) = np.nonzero(own >= least_own)
        found[row] = among[np.argsort(-own[among], kind="stable")[:count]]
    return found


def vote(classes: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """(n,) the class of the most votes among neighbours' classes (n, k); of equal ones the lowest."""
    weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / TEMPERATURE)
    votes = np.zeros((len(classes), int(classes.max()) + 1))
    np.add.at(votes, (np.arange(len(classes))[:, None], classes), weights)
    winners: np.ndarray = votes.argmax(axis=1)
    return winners
