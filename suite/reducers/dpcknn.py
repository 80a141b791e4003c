"""DPC-KNN: clustering by density peaks."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import positions
from suite.tokens.grouping import Matching, take
from suite.tokens.matching import pairwise_distances


@register("dpcknn")
class DPCKNN(Reducer):
    """Make one token of every cluster of patches: the plain mean around a density peak.

    Source: TCFormer (Zeng et al., CVPR 2022, arXiv 2204.08680), as a method of its own in Haurum et al.,
    ICCV-W 2023, arXiv 2308.04657; without the learned importance of tokens. Density is exp(-mean squared distance to
    the nearest neighbours, itself included), distances over sqrt(C); centres have the highest density times distance
    to a denser token, others join the nearest centre. Scores are compared as logarithms, so that a density too small
    for a float still ranks, and of equal densities the lower position counts as denser; the authors add noise of 1e-6.

    When: a baseline of clustering is wanted, in few blocks.

    neighbours: over how many density is taken.
    """

    rates = ("keep", "r")
    staged = True

    def __init__(self, neighbours: int = 5) -> None:
        super().__init__()
        if neighbours < 1:
            raise ValueError(f"neighbours={neighbours}: density needs at least 1")
        self.neighbours = neighbours

    def before_block(self, tokens, signals, amount):
        prefix = tokens.num_prefix
        with torch.no_grad(), torch.autocast(tokens.x.device.type, enabled=False):
            distance = pairwise_distances(tokens.x[:, prefix:]) / tokens.x.shape[2] ** 0.5
            order = density_peaks(distance, self.neighbours)
            centres, source = order[:, :-amount], order[:, -amount:]
            nearest = take(distance, source).take_along_dim(centres[:, None], dim=2).argmin(dim=2)
        fixed = positions(0, prefix, 1, order.device).expand(order.shape[0], -1)
        matching = Matching(torch.cat([fixed, prefix + centres], dim=1), prefix + source, prefix + nearest)
        return tokens.merge(matching, plain=True)


def density_peaks(distance, neighbours):
    """(B, T, T) distances -> (B, T) positions, best centre first."""
    near = distance.topk(min(neighbours, distance.shape[2]), dim=2, largest=False).values
    log_density = -near.square().mean(dim=2)
    order = log_density.argsort(dim=1, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(1, order, positions(0, order.shape[1], 1, order.device).expand_as(order))
    denser = place[:, None, :] < place[:, :, None]
    apart = distance.masked_fill(~denser, torch.inf).amin(dim=2)
    apart = torch.where(place == 0, distance.amax(dim=(1, 2))[:, None], apart)
    return (log_density + apart.log()).argsort(dim=1, descending=True, stable=True)
