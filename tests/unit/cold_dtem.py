"""DTEM's training with a choice so cold that it is hard, and what that has to equal: the same merges, tokens gone."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from suite.reducers.dtem import DTEM
from suite.tokens.grouping import Matching
from suite.tokens.soft_matching import split

COLD = {"tau1": 0.1, "tau2": 1e-7, "top": 1}


class HardTwin(DTEM):
    """In training, merges hard what DTEM would merge softly, in the order of training: A and B take turns by size."""

    @property
    def soft(self):
        return False

    def merge_softly(self, tokens, signals, amount):
        first, count = tokens.num_prefix, tokens.count
        r = min(amount, (count - first) // 2)
        embedded = F.linear(signals.normed, *self.extra_projection(signals.block))
        a, b = (F.normalize(side, dim=-1) for side in split(embedded, count, first))
        best, to = (a @ b.transpose(1, 2)).max(-1)
        chosen = best.topk(r, dim=1).indices
        to = to.gather(1, chosen)
        mass_a, mass_b = (side.clone() for side in split(tokens.sizes, count, first))
        mass_b = mass_b.scatter_add(1, to, mass_a.gather(1, chosen))
        mass_a = mass_a.scatter(1, chosen, 0.0)
        order = torch.cat([mass_a, mass_b], dim=1).argsort(dim=1, descending=True, stable=True)
        place = torch.cat([torch.arange(first, count, 2), torch.arange(first + 1, count, 2)])
        prefix = torch.arange(first).expand(len(order), -1)
        target = first + order.argsort(dim=1).gather(1, a.shape[1] + to)
        kept = torch.cat([prefix, place[order[:, : count - first - r]]], dim=1)
        return tokens.merge(Matching(kept, place[chosen], target))
