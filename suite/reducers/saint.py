"""SAINT: similarity-aware token pruning."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import positions
from suite.tokens.grouping import full_precision
from suite.tokens.matching import normalize
from suite.tokens.padding import padded


@register("saint")
class SAINT(Reducer):
    """Drop patches that have many close neighbours among every second patch; the image says how many.

    Source: Jeddi et al., 2025, arXiv 2503.11549 (its method for ViTs). Patches at even places (counted without prefix
    tokens) meet those at odd places; two are neighbours if the cosine of their keys reaches the rate's threshold. Every
    patch with k neighbours or more is a vote for one patch less, and those of the highest score go: the number of
    neighbours times exp(gamma (their mean cosine - tau)), or the mean cosine to all where there is none. What is kept
    of the even places comes first, by score, then the odd places. Acts in the first half of the blocks unless the rate
    names others.

    When: images differ in redundancy, batches are small, and nothing asks for fixed shapes.

    k, gamma: the authors' code runs 5 and 10 whatever its flags say.
    per_batch: drop as many patches of every image as vote on average over the batch, rounded down, as the authors' code
        does: what becomes of an image then depends on the images beside it. Default: as many as its own votes; samples
        of a batch are padded to the longest one.
    """

    rates = ("tau",)
    input_dependent = True
    reads_sizes = False

    def __init__(self, k: int = 5, gamma: float = 10.0, per_batch: bool = False) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k={k} neighbours has every patch; give 1 or more")
        if gamma < 0:
            raise ValueError(f"gamma={gamma} would keep what is redundant; give 0 or more")
        self.k, self.gamma, self.per_batch = k, gamma, per_batch

    def active_blocks(self, kind, depth):
        return tuple(range(max(1, depth // 2)))

    def capacity(self, count, num_prefix):
        patches = count - num_prefix
        return (patches + 1) // 2 if patches > 1 else 0

    def after_attention(self, tokens, signals, amount):
        prefix = tokens.num_prefix
        present = None if tokens.valid is None else tokens.valid[:, prefix:]
        with torch.no_grad(), torch.autocast(tokens.x.device.type, enabled=False):
            keys = full_precision(signals.keys)[:, prefix:]
            votes, score = redundancy(keys, signals.threshold, self.k, self.gamma, present)
            if self.per_batch and len(votes):
                votes = (votes.sum() // len(votes)).expand_as(votes)
            order, staying = arrangement(score, votes, tokens.num_patches, present)
            places, valid = padded(staying)
        if valid is None and places.shape[1] == tokens.num_patches:  # nobody goes, nor is anybody moved
            return tokens
        return tokens.keep(prefix + order.gather(1, places), valid=valid)


def redundancy(keys, tau, k, gamma, present=None):
    """Keys (B, T, d) of the patches -> (B, 1) int64 votes for one patch less, and (B, ⌈T/2⌉) scores of even places.

    present: (B, T) bool, False at trailing padding, which has no neighbours, no vote, and a score of -inf.
    """
    keys = normalize(keys)
    cosine = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)
    near = cosine >= tau
    if present is None:
        of_all = cosine.mean(2) if cosine.shape[2] else cosine.sum(2)
    else:
        odd = present[:, None, 1::2]
        near, of_all = near & odd, (cosine * odd).sum(2) / odd.sum(2).clamp(min=1)
    neighbours = near.sum(2)
    votes = neighbours >= k
    closeness = (cosine * near).sum(2) / neighbours.clamp(min=1) - tau
    score = torch.where(neighbours > 0, neighbours * (gamma * closeness).exp(), of_all)
    if present is not None:
        votes, score = votes & present[:, ::2], score.masked_fill(~present[:, ::2], -torch.inf)
    return votes.sum(1, keepdim=True), score


def arrangement(score, votes, patches, present=None):
    """(B, T) the order that patches are left in, and (B, T) bool which of them stay.

    score (B, ⌈T/2⌉) of even places, votes (B, 1) how many of the highest go; an image that loses none keeps its order.
    """
    by_score = score.argsort(dim=1, descending=True, stable=True)
    everywhere = positions(0, patches, 1, score.device).expand(len(score), -1)
    order = torch.cat([2 * by_score, everywhere[:, 1::2]], dim=1)
    order = torch.where(votes > 0, order, everywhere)
    staying = everywhere >= votes
    return order, staying if present is None else staying & present.gather(1, order)
