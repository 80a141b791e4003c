"""Bipartite matchings, which say what tokens are merged into which, and the distances that clusterings go by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.tokens.grouping import Matching, full_precision, take


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
        metric = F.normalize(full_precision(metric), dim=-1, eps=1e-12)
        scores = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)
        shielded_a, shielded_b = (protected + 1) // 2, protected // 2
        scores[:, :shielded_a] = -torch.inf
        scores[:, :, :shielded_b] = -torch.inf
        to = scores.argmax(dim=-1)
        best = scores.gather(-1, to[..., None]).squeeze(-1)
        order = best.argsort(dim=-1, descending=True, stable=True)
    source, unmerged = order[:, :r], order[:, r:]
    if protected:  # without a class token the authors' code leaves the unmerged tokens in order of similarity
        unmerged = unmerged.sort(dim=-1).values
    prefix = torch.arange(protected, device=metric.device).expand(batch, -1)
    odd = torch.arange(2 * shielded_b + 1, count, 2, device=metric.device).expand(batch, -1)
    kept = torch.cat([prefix, 2 * unmerged[:, shielded_a:], odd], dim=1)
    first_odd = protected + unmerged.shape[1] - shielded_a
    return Matching(kept, 2 * source, to.gather(1, source) - shielded_b + first_odd)


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
    targets = count // k - protected // k
    position = torch.arange(protected, count, device=metric.device)
    apart = position[(position % k == k - 1).int().argsort(stable=True)].expand(batch, -1)
    split = count - protected - targets
    return nearest_matching(metric, r, protected, apart[:, :split], apart[:, split:])


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
    with torch.no_grad(), torch.autocast(metric.device.type, enabled=False):
        metric = F.normalize(full_precision(metric), dim=-1, eps=1e-12)
        scores = take(metric, sources) @ take(metric, targets).transpose(1, 2)
        best, to = scores.max(dim=-1)
        order = best.argsort(dim=-1, descending=True, stable=True)
    merged, unmerged = order[:, :r], order[:, r:]
    if protected:
        unmerged = unmerged.sort(dim=-1).values
    prefix = torch.arange(protected, device=metric.device).expand(metric.shape[0], -1)
    kept = torch.cat([prefix, sources.gather(1, unmerged), targets], dim=1)
    return Matching(kept, sources.gather(1, merged), to.gather(1, merged) + protected + unmerged.shape[1])


def pairwise_distances(x: Tensor) -> Tensor:
    """(B, N, C) -> (B, N, N) Euclidean distances in float32 at least, by one matrix product.

    Symmetric and 0 on the diagonal to the last bit, so that ties are ties: of two lone neighbours neither is the better
    centre.
    """
    x = full_precision(x)
    x = x - x.mean(dim=1, keepdim=True)  # what all tokens share would cost digits
    apart = torch.cdist(x, x)
    itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return ((apart + apart.transpose(1, 2)) / 2).masked_fill(itself, 0)
