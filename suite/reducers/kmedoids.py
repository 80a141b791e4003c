"""Token Pooling by weighted K-medoids."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import positions
from suite.tokens.grouping import Matching, take
from suite.tokens.matching import pairwise_distances


@register("kmedoids")
class KMedoids(Reducer):
    """Keep the patches that stand best for all others: the medoids of weighted clusters.

    Source: Token Pooling (Marin et al., WACV 2023, arXiv 2110.03860): clusters minimise the weighted sum of squared
    distances to their medoid, weights are the attention that each token received in the block before, and medoids start
    at the heaviest tokens. Where no block ran before, or with weighted=False, weights are equal and medoids start far
    apart: at the token nearest to all, then at the one farthest from those there are (a random start would not
    repeat). Medoids stay as they are; others are owned by the nearest one. Ties go to the lowest position.

    When: a baseline of clustering is wanted, in few blocks and where time does not matter.

    iterations: how often tokens are assigned and medoids chosen anew. weighted: by attention.
    """

    rates = ("keep", "r")
    staged = True

    def __init__(self, iterations: int = 3, weighted: bool = True) -> None:
        super().__init__()
        if iterations < 0:
            raise ValueError(f"iterations={iterations}: cannot be negative")
        self.iterations, self.weighted = iterations, weighted
        self.reads_map = self.reads_previous = weighted

    def observe(self, tokens, signals):
        return (tokens.pass_on(signals.received, shared=True),)

    def before_block(self, tokens, signals, amount):
        prefix, count = tokens.num_prefix, tokens.count - tokens.num_prefix - amount
        with torch.no_grad(), torch.autocast(tokens.x.device.type, enabled=False):
            distance = pairwise_distances(tokens.x[:, prefix:]).square()
            if signals.observed is None:
                weight, medoids = torch.ones_like(distance[..., 0]), far_apart(distance, count)
            else:
                weight = signals.observed[0][:, prefix:].to(distance.dtype)
                medoids = weight.argsort(dim=1, descending=True, stable=True)[:, :count]
            for _ in range(self.iterations):
                medoids = better_medoids(distance, weight, medoids)
            cluster = nearest(distance, medoids)
            chosen = torch.zeros_like(cluster).scatter_(1, medoids, 1)
            source = chosen.argsort(dim=1, stable=True)[:, :amount]
        fixed = positions(0, prefix, 1, source.device).expand(source.shape[0], -1)
        kept = torch.cat([fixed, prefix + medoids], dim=1)
        matching = Matching(kept, prefix + source, prefix + cluster.gather(1, source))
        return tokens.merge(matching, x=take(tokens.x, kept))


def far_apart(distance, count):
    """(B, T, T) -> (B, count) positions: the token nearest to all, then ever the farthest from those there are."""
    picked = distance.sum(dim=2).argmin(dim=1, keepdim=True)
    gap, chosen = take(distance, picked)[:, 0], [picked]
    for _ in range(count - 1):
        gap = gap.scatter(1, picked, -1.0)  # a copy of a medoid is as near to it, but the medoid is taken
        picked = gap.argmax(dim=1, keepdim=True)
        gap = torch.minimum(gap, take(distance, picked)[:, 0])
        chosen.append(picked)
    return torch.cat(chosen, dim=1)


def nearest(distance, medoids):
    """(B, T) int64 in [0, M): the medoid (B, M) that is nearest to every token; a medoid belongs to itself."""
    cluster = take(distance, medoids).argmin(dim=1)
    return cluster.scatter_(1, medoids, positions(0, medoids.shape[1], 1, medoids.device).expand_as(medoids))


def better_medoids(distance, weight, medoids):
    """(B, M) the member of every cluster whose weighted distances to all members are smallest."""
    cluster = nearest(distance, medoids)
    strangers = cluster[:, :, None] != cluster[:, None]
    cost = (distance.masked_fill(strangers, 0) @ weight[..., None])[..., 0]
    elsewhere = cluster[:, None] != positions(0, medoids.shape[1], 1, medoids.device)[..., None]
    return cost[:, None].masked_fill(elsewhere, torch.inf).argmin(dim=2)
