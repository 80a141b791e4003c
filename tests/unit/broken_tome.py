"""ToMe written again, and three ways to get it wrong: what the gate has to tell apart."""

import torch

from suite.matching import bipartite_soft_matching
from suite.reducers.base import Reducer


class Copy(Reducer):
    """ToMe, word for word."""

    weighted_pooling = True
    proportional_attention = None

    def capacity(self, count, num_prefix):
        return (count - num_prefix) // 2

    def after_attention(self, tokens, signals, amount):
        return tokens.merge(bipartite_soft_matching(signals.keys, amount, protected=tokens.num_prefix))


class WrongParity(Copy):
    """The two sets of tokens are one place off: every token is judged by its neighbour."""

    def after_attention(self, tokens, signals, amount):
        keys = signals.keys.roll(1, dims=1)
        return tokens.merge(bipartite_soft_matching(keys, amount, protected=tokens.num_prefix))


class NoSizes(Copy):
    """A token that stands for many counts as one, in averages and in attention."""

    weighted_pooling = False
    proportional_attention = False

    def after_attention(self, tokens, signals, amount):
        pairs = bipartite_soft_matching(signals.keys, amount, protected=tokens.num_prefix)
        return tokens.merge(pairs, weight=torch.ones_like(tokens.sizes))


class ClassTokenMerged(Copy):
    """The class token is a token like any other."""

    def after_attention(self, tokens, signals, amount):
        return tokens.merge(bipartite_soft_matching(signals.keys, amount, protected=0))
