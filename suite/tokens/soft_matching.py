"""Soft grouping and soft merging: a differentiable stand-in for "merge the r most similar pairs", for training.

Source: Lee and Hong, Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers (DTEM),
NeurIPS 2024, arXiv 2412.10569. No token leaves the sequence: what is merged away keeps its place with a
size near 0, so that proportional attention all but ignores it.

Everything is computed in float32 at least, whatever autocast says: the mask log(1 - a) would underflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from suite.tokens.attention_bias import SMALLEST_SIZE, floored_log
from suite.tokens.grouping import full_precision, take
from suite.tokens.state import Tokens

CERTAIN = torch.finfo(torch.float32).eps  # 1 - a is kept above this, so that a row chosen for certain has a finite mask


def soft_grouping(
    metric_a: Tensor, metric_b: Tensor, r: int, tau1: float = 0.1, tau2: float = 0.1, top: int = 3
) -> Tensor:
    """Which share of every token of A joins which token of B when r tokens of A are to be merged away.

    r times, one softmax over all pairs chooses a pair softly, and the chosen rows are masked for the times after:
    A^t = softmax(S^t / tau2), S^(t+1) = S^t + log(1 - sum_j A^t), S^1 = cos / tau1. All columns of a row are masked by
    the same amount, so only how the choice is spread over rows changes with t; within a row it stays what it was.

    Args:
        metric_a, metric_b: (B, |A|, D) and (B, |B|, D) what similarity (cosine) is measured on.
        r: how many are chosen; at most |A|.
        tau1, tau2: temperatures of the similarity and of the choice.
        top: every token of A sees only this many most similar tokens of B; ties go to the lowest position.

    Returns (B, |A|, |B|) shares: sum_t A^t divided by max(1, its row sum), the row sum taken as a constant. They are at
    least 0, exactly 0 outside the top ones, and a row sums to at most 1.
    """
    with torch.autocast(metric_a.device.type, enabled=False):
        a, b = (F.normalize(full_precision(metric), dim=-1, eps=1e-12) for metric in (metric_a, metric_b))
        similarity = a @ b.transpose(1, 2)
        best = strongest(similarity.detach(), top)
        logits = similarity.gather(-1, best) / (tau1 * tau2)
        within, row = logits.softmax(-1), logits.logsumexp(-1)
        chosen = torch.zeros_like(row)
        for _ in range(r):
            now = row.softmax(-1)
            chosen = chosen + now
            row = row + (1 - now).clamp(min=CERTAIN).log() / tau2
        share = chosen / chosen.detach().clamp(min=1)
        return torch.zeros_like(similarity).scatter(-1, best, within * share[..., None])


def strongest(similarity: Tensor, top: int) -> Tensor:
    """(B, A, top) places of the largest values of each row of (B, A, B'), largest first, the first of equal ones.

    A few maxima cost a fraction of sorting every row.
    """
    left, places = similarity.clone(), []
    for _ in range(min(top, similarity.shape[-1])):
        places.append(left.argmax(dim=-1, keepdim=True))
        left.scatter_(-1, places[-1], -torch.inf)
    return torch.cat(places, dim=-1)


def soft_merge(x: Tensor, size: Tensor, grouping: Tensor, active: int, protected: int) -> tuple[Tensor, Tensor, Flow]:
    """Let tokens of A flow into tokens of B by `grouping`, and put the smallest of both last among the active ones.

    For j in B: m_j' = m_j + sum_i E_ij m_i and x_j' = (m_j x_j + sum_i E_ij m_i x_i) / m_j'. For i in A:
    m_i' = m_i (1 - sum_j E_ij), and the features stay. The gradient reaches features and sizes.

    Args:
        x: (B, N, C) tokens: `protected` ones, those that still take part (up to `active`), and those that no longer do.
        size: (B, N) float32 or float64, real-valued sizes m >= 0; their sum does not change.
        grouping: (B, |A|, |B|) from `soft_grouping`, for A and B of `split`.

    Returns features (x's dtype) and sizes of as many tokens, in a new order: protected, those of A and B by descending
    size, those that took no part before; and where they went. After a merge of r, the first `active - r` take part.
    """
    with torch.autocast(x.device.type, enabled=False):
        (a, b), (mass_a, mass_b) = split(full_precision(x), active, protected), split(size, active, protected)
        flow = grouping.transpose(1, 2)
        total = mass_b + (flow @ mass_a[..., None])[..., 0]
        # a token of size 0 that nothing flows into has no average
        merged = (mass_b[..., None] * b + flow @ (mass_a[..., None] * a)) / total.clamp(min=SMALLEST_SIZE)[..., None]
        stays = 1 - grouping.sum(-1)
        # the clip takes away rounding alone; with its gradient, rows that leave completely would stop learning
        stays = stays + (stays.clamp(0, 1) - stays).detach()
        taking_part = torch.cat([a, merged], dim=1), torch.cat([mass_a * stays, total], dim=1)
        order = taking_part[1].detach().argsort(dim=1, descending=True, stable=True)
        x_sorted, size_sorted = (take(part, order) for part in taking_part)
    return (
        torch.cat([x[:, :protected], x_sorted.to(x.dtype), x[:, active:]], dim=1),
        torch.cat([size[:, :protected], size_sorted, size[:, active:]], dim=1),
        Flow(grouping, stays, order, active, protected, x.shape[1]),
    )


@dataclass(frozen=True)
class Flow:
    """Where the tokens of one soft merge went: what `restore` needs to give every one of them back.

    grouping: (B, |A|, |B|) shares that flowed. stays: (B, |A|) shares that did not. order: (B, |A| + |B|) which of A
    and then B stands in each place afterwards. count: tokens in all.
    """

    grouping: Tensor
    stays: Tensor
    order: Tensor
    active: int
    protected: int
    count: int

    def origin(self) -> Tensor:
        """(B, count) position before of the token that stands in each place afterwards."""
        before = torch.arange(self.count, device=self.order.device)[None].expand(len(self.order), -1)
        sorted_part = take(torch.cat(split(before, self.active, self.protected), dim=1), self.order)
        return torch.cat([before[:, : self.protected], sorted_part, before[:, self.active :]], dim=1)

    def restore(self, x: Tensor) -> Tensor:
        """(B, N, C) features of the tokens afterwards -> (B, N, C) of those before, float32 at least.

        A token of A has the mixture of what stayed and of the tokens that it flowed into, one of B what it became. Sums
        of shares are 1. Where all shares are 0 or 1, every token has the features of the one that owns it.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            sorted_part = x[:, self.protected : self.active]
            a, b = take(sorted_part, self.order.argsort(dim=1)).split(self.grouping.shape[1:], dim=1)
            a = self.stays[..., None] * a + self.grouping @ b
            # A and B took turns; A may have one more
            place = torch.arange(sorted_part.shape[1], device=x.device)
            before = torch.cat([a, b], dim=1)[:, place // 2 + place % 2 * a.shape[1]]
            return torch.cat([x[:, : self.protected], before, x[:, self.active :]], dim=1)


def log_presence(tokens: Tokens) -> Tensor | None:
    """(B, N) what whoever reads tokens without regard to sizes adds to the logits of attention on them; None: nothing.

    log(min(m, 1)) of the sizes m that soft merging left, so that tokens vanish as they are merged away, and the others
    are read as they are: a hard merge takes a token out and says nothing of the rest. Nor is padding read, or what was
    pruned softly. As `floored_log`, it is finite and has a gradient where a size is 0.
    """
    presence = tokens.presence if tokens.active is None else tokens.sizes.where(tokens.sizes < 1, 1)
    return None if presence is None else floored_log(presence)


def split(tokens: Tensor, active: int, protected: int) -> tuple[Tensor, Tensor]:
    """(B, N, ...) -> A and B: every other one of the tokens that take part, from the first that is not protected."""
    return tokens[:, protected:active:2], tokens[:, protected + 1 : active : 2]
