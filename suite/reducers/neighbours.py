"""The score of NAP: what the class token attends to, and what neighbours along a curve receive."""

import torch
import torch.nn.functional as F

from suite.tokens.constants import remembered
from suite.tokens.curve import curve_rows
from suite.tokens.grouping import in_batch, take_rows
from suite.tokens.ranking import largest_first

FARTHEST = 4096
"""As far as neighbours may reach: no sequence of patches is longer, and every place costs memory."""


def check_neighbourhood(window, alpha):
    """ValueError for options that mean nothing."""
    if window < 1:
        raise ValueError(f"window={window} reaches no neighbour; give 1 or more")
    if window > FARTHEST:
        raise ValueError(f"window={window} reaches beyond every sequence; give at most {FARTHEST}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} is no weight between 0 and 1")


def ranked_by_neighbours(tokens, signals, window, alpha):
    """(B, T) rows of the flattened batch: patches by class attention and what their neighbours receive, best first."""
    rows, first = curve_rows(tokens, signals.grid), tokens.num_prefix
    scores = signals.class_attention, signals.received
    own, received = (score[:, first:] if rows is None else take_rows(score, rows) for score in scores)
    order = largest_first(torch.lerp(own, support(received, window), alpha))
    return in_batch(order, tokens.count, first) if rows is None else rows.gather(1, order)


def support(received, window):
    """(B, T) attention that patches receive, in their order -> (B, T) that of their neighbours, the nearer the more.

    Weights fall as 1 / (distance + 1) and sum to 1; beyond either end there is nothing.
    """
    near = F.pad(received, (window, window)).unfold(1, 2 * window + 1, 1)
    return (near * neighbour_weights(window, received.dtype, received.device)).sum(dim=2)


@remembered
def neighbour_weights(window, dtype, device):
    """(2 window + 1,) of the places from `window` before to `window` after, 0 in the middle."""
    weight = 1 / (torch.arange(-window, window + 1, dtype=torch.float64).abs() + 1)
    weight[window] = 0
    return (weight / weight.sum()).to(device, dtype)
