"""Bipartite matchings: which tokens are merged into which."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.pooling import Matching, full_precision


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
