"""Orders of scores, best first; of equal ones the lower place comes first."""

import torch
from torch import Tensor

from suite.tokens.constants import remembered
from suite.tokens.grouping import in_batch

TIE = 2.0**-50  # between places; of scores above 2e-6, no two that differ in single precision come nearer


def best_first(score: Tensor) -> Tensor:
    """(B, K) scores of at most 1, such as cosines -> (B, K) places, best first; ties keep their order."""
    if score.dtype == torch.float64 or score.device.type == "mps":
        return score.argsort(dim=1, descending=True, stable=True)
    # a selection of all takes half the kernels of a stable sort, and in double precision there is room for the place
    return (score - tie_breaks(score.shape[1], score.device)).topk(score.shape[1], dim=1).indices


@remembered
def tie_breaks(count: int, device: torch.device) -> Tensor:
    """(K,) float64, what places cost of a score."""
    return torch.arange(count, device=device, dtype=torch.float64) * TIE


def largest_first(score: Tensor) -> Tensor:
    """(B, K) scores >= 0 of any magnitude -> (B, K) places, best first; ties keep their order."""
    traced = torch.jit.is_tracing() or torch.compiler.is_exporting()  # other runtimes do not read a float's bits
    if score.dtype != torch.float32 or score.device.type == "mps" or traced:
        return score.argsort(dim=1, descending=True, stable=True)
    # the bits of such a float rise with it and leave room for the place: a selection takes half the kernels of a sort
    places = later_places(score.shape[1], score.device)
    return torch.add(places, score.view(torch.int32), alpha=1 << 20).topk(score.shape[1], dim=1).indices


@remembered
def later_places(count: int, device: torch.device) -> Tensor:
    """(K,) int64: 0, -1, -2, ..."""
    return -torch.arange(count, device=device)


def ranked_rows(score: Tensor, num_prefix: int) -> Tensor:
    """`rank` of scores that are not negative, in rows of the flattened batch."""
    return in_batch(largest_first(score[:, num_prefix:]), int(score.shape[1]), num_prefix)
