"""Whether the nearest training images show the same: the first step of every search by image.

Source of recall@k as a share of queries: H. Jégou, M. Douze and C. Schmid, "Product quantization for nearest neighbor
search", TPAMI 2011; by classes as in H. O. Song et al., "Deep metric learning via lifted structured feature embedding",
CVPR 2016.
"""

from __future__ import annotations

import numpy as np

from suite.contract.metric import Metric
from suite.stats.aggregates import Share
from tasks.features.knn import BANK, SAMPLE, nearest_images
from tasks.features.protocol import Found, Protocol

RANKS = (1, 5, 10)


class Retrieval(Protocol):
    """Recall@k: one of the k training images of the largest cosine is of a right class."""

    name = "retrieval"
    metrics = tuple(Metric(f"recall{k}", f"Recall@{k} (%)", Share(f"recall{k}"), needs=(SAMPLE, BANK)) for k in RANKS)
    said = "retrieval: cosine; found is what has a class of the query's among the first k"

    def columns(self, found: Found) -> dict[str, np.ndarray]:
        """Whether one of the first k is right, for each k."""
        nearest, _ = nearest_images(found.samples.features, found.bank.features, max(RANKS))
        right = found.samples.is_right(found.bank.labels[nearest, 0])
        first = np.logical_or.accumulate(right, axis=1)  # of fewer than k training images, all
        return {f"recall{k}": first[:, min(k, first.shape[1]) - 1] for k in RANKS}
