"""ToMe written again, and three ways to get it wrong: what the gate has to tell apart."""

import torch

from suite.reducers.base import Reducer
from suite.tokens.matching import bipartite_soft_matching


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


class Useless(Copy):
    """Computes what nobody asks for: torch's trace drops it, and with it its cost."""

    def after_attention(self, tokens, signals, amount):
        for _ in range(20):
            signals.keys @ signals.keys.transpose(1, 2)
        return super().after_attention(tokens, signals, amount)


class InPlace(Copy):
    """Writes a mask in a way that torch cannot trace."""

    def after_attention(self, tokens, signals, amount):
        mask = torch.ones(signals.keys.shape[:2], dtype=torch.bool)
        mask.scatter_(1, torch.zeros(len(mask), 1, dtype=torch.long), False)
        return super().after_attention(tokens, signals, amount)


class Jittered(Copy):
    """As good as ToMe and not the same: its keys are told apart by numbers that differ by a few percent."""

    def after_attention(self, tokens, signals, amount):
        keys = signals.keys
        noise = torch.randn(keys.shape[1:], generator=torch.Generator().manual_seed(keys.shape[1])).to(keys)
        pairs = bipartite_soft_matching(keys + 0.02 * keys.std() * noise, amount, protected=tokens.num_prefix)
        return tokens.merge(pairs)
