"""Bipartite matchings, which say what tokens are merged into which, and the distances that clusterings go by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.tokens.constants import first_rows, positions, remembered, rows
from suite.tokens.grouping import Matching, full_precision, in_batch, take_rows, with_prefix
from suite.tokens.products import cosines
from suite.tokens.ranking import best_first


def bipartite_soft_matching(metric: Tensor, r: int, protected: int) -> Matching:
    """Bipartite soft matching (ToMe, Bolya et al., ICLR 2023, section 3 and appendix D).

    Tokens at even positions (A) each point at the most similar token at an odd position (B); the `r` best pointers
    become merges. Output order: prefix, unmerged A ascending, B. The next block's split is a split of this order.

    Args:
        metric: (B, N, D) what similarity (cosine) is measured on.
        r: tokens to merge away; at most (N - protected) // 2 are.
        protected: leading tokens that are never merged nor merged into.

    Ties go to the lowest position, so that devices and batch sizes agree. No gradient flows.
    """
    batch, count = metric.shape[:2]
    r = max(0, min(r, (count - protected) // 2))
    if r == 0:
        everything = torch.arange(count, device=metric.device).expand(batch, -1)
        nothing = everything[:, :0]
        return Matching(everything, nothing, nothing)
    with torch.no_grad(), torch.autocast(metric.device.type, enabled=False):
        metric = normalize(metric)
        cosine = cosines(metric[:, ::2], metric[:, 1::2])
        best, to = cosine[:, (protected + 1) // 2 :, protected // 2 :].max(dim=-1)
        order = best_first(best)
    first_a, first_b = protected + protected % 2, protected + 1 - protected % 2
    # rows of A in the flattened batch, the best pointers first
    ordered = torch.add(first_rows(batch, count, first_a, metric.device), order, alpha=2)
    source, unmerged = ordered[:, :r], ordered[:, r:]
    if protected:  # without a class token the authors' code leaves the unmerged tokens in order of similarity
        unmerged = ascending(unmerged)
    kept = with_prefix(count, protected, unmerged, rows(batch, count, first_b, count, 2, metric.device))
    return Matching.of_rows(kept, source, to.gather(1, order[:, :r]), count, protected + unmerged.shape[1])


def normalize(metric: Tensor) -> Tensor:
    """(B, N, D) rows of unit length, 0 where they are shorter than 1e-12, in the precision of `metric`."""
    return F.normalize(metric, dim=-1, eps=1e-12)


def ascending(places: Tensor) -> Tensor:
    """(B, K) different integers in rising order; a selection of all of them takes half the kernels of a sort."""
    return places.topk(places.shape[1], dim=1, largest=False).values if places.shape[1] else places


def the_others(places: Tensor, count: int) -> Tensor:
    """(B, S) different places below `count` -> (B, count - S) the others, in rising order."""
    here = positions(0, count, 1, places.device).expand(places.shape[0], -1)
    return (count - here).scatter(1, places, 0).topk(count - places.shape[1], dim=1).indices


def kth_bipartite_matching(metric: Tensor, r: int, protected: int, k: int) -> Matching:
    """The `r` best pointers of all other tokens at those that stand at every k-th place of the sequence.

    The k-th bipartite matching beside ToMe (Bolya et al., ICLR 2023), which merges all the others. Places are counted
    with the protected tokens, so that k = 2 is `bipartite_soft_matching`.

    Args:
        metric: (B, N, D) what similarity (cosine) is measured on.
        r: tokens to merge away.
        protected: leading tokens that are never merged nor merged into.
        k: tokens at positions k - 1, 2k - 1, ... take others in.
    """
    batch, count = metric.shape[0], int(metric.shape[1])
    sources, targets = (every_kth(batch, count, protected, k, taking_in, metric.device) for taking_in in (False, True))
    return nearest_matching(metric, r, protected, sources, targets)


@remembered
def every_kth(batch: int, count: int, protected: int, k: int, taking_in: bool, device: torch.device) -> Tensor:
    """(B, K) int64 positions k - 1, 2k - 1, ... beyond the protected ones, or all the others."""
    places = [place for place in range(protected, count) if (place % k == k - 1) == taking_in]
    return torch.tensor([places], dtype=torch.int64, device=device).expand(batch, -1)


def nearest_matching(metric: Tensor, r: int, protected: int, sources: Tensor, targets: Tensor) -> Matching:
    """Every source points at its most similar target; the `r` best pointers become merges.

    Args:
        metric: (B, N, D) what similarity (cosine) is measured on.
        r: tokens to merge away, at most as many as there are sources.
        protected: leading tokens, among neither sources nor targets.
        sources, targets: (B, S) and (B, T) ascending positions of all other tokens (order of sources: any if r = S).

    Output order: protected, unmerged sources, targets; the unmerged stand in ascending order, or as in
    `bipartite_soft_matching` by similarity where nothing is protected. Ties go to the lowest place. No gradient flows.
    """
    count = metric.shape[1]
    with torch.no_grad(), torch.autocast(metric.device.type, enabled=False):
        metric, sources, targets = normalize(metric), in_batch(sources, count), in_batch(targets, count)
        best, to = cosines(take_rows(metric, sources), take_rows(metric, targets)).max(dim=-1)
        merged, unmerged = sources, sources[:, :0]
        if r < sources.shape[1]:
            order = best_first(best)
            ordered = sources.gather(1, order)
            to, merged, unmerged = to.gather(1, order[:, :r]), ordered[:, :r], ordered[:, r:]
    if protected:
        unmerged = ascending(unmerged)
    kept = with_prefix(count, protected, unmerged, targets)
    return Matching.of_rows(kept, merged, to, count, protected + unmerged.shape[1])


def pairwise_distances(x: Tensor) -> Tensor:
    """(B, N, C) -> (B, N, N) Euclidean distances in float32 at least, by one matrix product.

    Symmetric and 0 on the diagonal to the last bit, so that ties are ties: of two lone neighbours neither is the better
    centre.
    """
    x = full_precision(x)
    x = x - x.mean(dim=1, keepdim=True)  # what all tokens share would cost digits
    apart = distances_by_product(x) if torch.compiler.is_exporting() else torch.cdist(x, x)
    return ((apart + apart.transpose(1, 2)) / 2).masked_fill(diagonal(x.shape[1], x.device), 0)


def distances_by_product(x: Tensor) -> Tensor:
    """What `torch.cdist` computes of more than 25 rows, by operators that all runtimes have, for any batch size."""
    squares = (x * x).sum(2, keepdim=True)
    return torch.baddbmm(squares + squares.transpose(1, 2), x, x.transpose(1, 2), alpha=-2).clamp(min=0).sqrt()


@remembered
def diagonal(count: int, device: torch.device) -> Tensor:
    """(N, N) bool."""
    return torch.eye(count, dtype=torch.bool, device=device)
