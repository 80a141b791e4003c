"""The squeeze of TPS, which saves what is pruned: every token that goes is mixed into the most similar that stays."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suite.tokens.grouping import Matching, computed_in, full_precision, in_batch, take_rows, with_prefix
from suite.tokens.products import cosines
from suite.tokens.state import Tokens

NO_HOST = -100.0  # a cosine that no pair has, and whose exponential vanishes


def squeeze(tokens: Tokens, staying: Tensor, leaving: Tensor) -> Tokens:
    """Fold every pruned token into the kept token that is most like it.

    staying (B, K), leaving (B, S): positions of all patch tokens; those that stay keep the order given. A host x with
    guests y of cosine c becomes (e x + sum e^c y) / (e + sum e^c), summed in float32 at least; a host without guests
    is copied bit for bit. A guest that is equally like several hosts goes to all of them and is owned by the first.
    Source: TPS (Wei et al., CVPR 2023, arXiv 2304.10716).
    """
    return squeeze_rows(tokens, in_batch(staying, tokens.count), in_batch(leaving, tokens.count))


def squeeze_rows(tokens: Tokens, staying: Tensor, leaving: Tensor) -> Tokens:
    """`squeeze` of rows (B, K) and (B, S) of the flattened batch."""
    prefix = tokens.num_prefix
    kept = with_prefix(tokens.count, prefix, staying)
    x, guests = take_rows(tokens.x, kept), take_rows(tokens.x, leaving)
    hosts = x[:, prefix:]
    with torch.autocast(x.device.type, enabled=False):
        single = torch.promote_types(x.dtype, torch.float32)
        norms = torch.linalg.vector_norm(hosts, dim=2, dtype=single)[:, None] + 1e-6
        likeness = cosines(unit(guests), hosts) / norms
        best, host = likeness.max(dim=2, keepdim=True)
        share = likeness.exp() * (likeness == best)
        weight = share.sum(1) + math.e
        share = computed_in(x.dtype, torch.div, share, weight[:, None]).transpose(1, 2)
        own = (math.e / weight)[..., None]  # 1 to the last bit where nobody comes
        if share.requires_grad:
            x = torch.cat([x[:, :prefix], torch.baddbmm((hosts * own).to(x.dtype), share, guests)], dim=1)
        else:
            hosts.mul_(own).baddbmm_(share, guests)
    return tokens.merge(Matching.of_rows(kept, leaving, host[..., 0], tokens.count, prefix), x=x)


def squeeze_softly(patches: Tensor, staying: Tensor, leaving: Tensor) -> Tensor:
    """`squeeze` where nobody goes: patches (B, T, C) with what leaves folded into what stays, each in its old place.

    staying, leaving: (B, T) 1 or 0. Those that leave keep their features beside, for whoever attends to them still
    (only themselves). A guest's weight is `leaving` e^c, so the gradient also reaches tokens that stay: what the host
    would gain by them if they left.
    """
    with torch.autocast(patches.device.type, enabled=False):
        wide = full_precision(patches)
        likeness = likeness_to_hosts(unit(wide), staying)
        share = likeness.exp() * (likeness == likeness.amax(dim=2, keepdim=True)) * leaving[..., None]
        mixed = (math.e * wide + share.transpose(1, 2) @ wide) / (math.e + share.sum(1)[..., None])
    return mixed.to(patches.dtype)


def likeness_to_hosts(rows: Tensor, staying: Tensor) -> Tensor:
    """(B, T, C) unit rows -> (B, T, T) cosines of each with every other that stays, `NO_HOST` with the rest."""
    itself = torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device)
    return (rows @ rows.transpose(1, 2)).masked_fill((staying == 0)[:, None] | itself, NO_HOST)


def unit(x: Tensor) -> Tensor:
    """Rows over their norms, with the 1e-6 on the norm that the authors add."""
    return x / (x.norm(dim=2, keepdim=True) + 1e-6)
