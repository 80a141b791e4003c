"""ATS: adaptive token sampling."""

import torch

from suite.reducers.base import Reducer, SelectedQueries, register
from suite.tokens.grouping import full_precision
from suite.tokens.padding import padded


@register("ats")
class ATS(Reducer):
    """Sample patches in proportion to their significance; an image of few significant patches keeps fewer.

    Source: Fayyaz et al., ECCV 2022, arXiv 2111.15667. Significance of a patch: class attention times the norm of its
    value, summed over heads. Its cumulative sum, scaled to 1, is met at the K - 1 points 1/2K, 3/2K, ...; the patch
    nearest to each point stays (of equally near ones the first), so that at most K tokens do, the class token included.
    Queries of the others are not answered; keys and values are those of all tokens. A rate says K. All prefix tokens
    stay, and K counts one of them. Samples of a batch are padded to the longest one.

    When: images differ in how many patches matter, batches are small, and nothing asks for fixed shapes.
    """

    rates = ("keep", "r")
    staged = True
    needs_class_token = True
    input_dependent = True

    def inside_attention(self, tokens, signals, amount):
        prefix = tokens.num_prefix
        attention, values = signals.class_rows, signals.heads[2]
        with torch.no_grad():
            norms = full_precision(values).norm(dim=-1)[:, :, None]
            significance = (attention * norms).sum(1).mean(1)[:, prefix:]
            present = None if tokens.valid is None else tokens.valid[:, prefix:]
            index, valid = padded(sample(significance, signals.planned - prefix, present))
        index = prefix + index
        kept = tokens.keep(index, valid=valid)
        rows = torch.cat([torch.arange(prefix, device=index.device).expand(index.shape[0], -1), index], dim=1)
        return SelectedQueries(kept, rows)


def sample(significance, points, present=None):
    """(B, T) -> (B, T) bool: what inverse transform sampling at `points` points picks, at most so many a sample.

    present: (B, T) bool, False at trailing padding, which is never picked.
    """
    # double, and never falling: neither rounding nor a parallel sum decides which entry is nearest
    running = significance.double().cumsum(dim=1).cummax(dim=1).values
    running = running / running[:, -1:].clamp(min=torch.finfo(running.dtype).tiny)
    if present is not None:
        running = running.masked_fill(~present, torch.inf)
    wanted = (2 * torch.arange(points, device=running.device, dtype=running.dtype) + 1) / (2 * points + 2)
    wanted = wanted.expand(len(running), -1).contiguous()
    above = torch.searchsorted(running, wanted).clamp(max=running.shape[1] - 1)
    high, low = running.gather(1, above), running.gather(1, (above - 1).clamp(min=0))
    nearest = torch.where(wanted - low <= high - wanted, low, high)
    # the first entry of that value: those after it add nothing to the sum
    picked = torch.searchsorted(running, nearest)
    return torch.zeros_like(significance, dtype=torch.bool).scatter(1, picked, 1)
