"""DiffRate: so many tokens pruned and so many merged in every block, as a plan says."""

import warnings
from dataclasses import replace

import torch

from suite.pooling import Matching, full_precision, rank, take
from suite.reducers.base import Reducer, register

SMALLEST_SIZE = 1e-6  # sizes shrink by negative cosines; the logarithm of one at or below zero is no bias


@register("diffrate")
class DiffRate(Reducer):
    """Drop the least attentive patches, then merge the next ones into their most similar among the rest.

    Source: Chen et al., ICCV 2023, arXiv 2305.17997. Every block sorts its patches by class attention, drops what is
    beyond its first number, and sends what is beyond its second to the most similar (cosine) of those before it. The
    mean is plain, but a token that is merged brings only its size times that cosine, so sizes are no integers; they
    bias attention. How many, in every block, is learned under a FLOPs target; the lists are the plan. With a rate
    instead, half of what each block takes out is pruned and half is merged (ours: an unlearned plan).

    prune_kept, merge_kept: tokens that stay after pruning and after merging, one number a block, all prefix tokens
        (class, distillation, register) counted; a number at or above what is there takes nothing out.
    """

    rates = ("r",)
    needs_class_token = True
    learned = "rates"
    exact_groups = False
    proportional_attention = weighted_pooling = True

    def __init__(self, prune_kept: list[int] | None = None, merge_kept: list[int] | None = None) -> None:
        super().__init__()
        if (prune_kept is None) != (merge_kept is None):
            raise ValueError("a plan is two lists; give both prune_kept and merge_kept, or a rate instead")
        self.prune_kept, self.merge_kept = checked("prune_kept", prune_kept), checked("merge_kept", merge_kept)
        if self.planned and len(self.prune_kept) != len(self.merge_kept):
            lengths = f"{len(self.prune_kept)} and {len(self.merge_kept)}"
            raise ValueError(f"prune_kept and merge_kept list {lengths} blocks; give one number a block in both")

    @property
    def planned(self):
        return self.prune_kept is not None

    @property
    def trained(self):
        return self.planned or self._trained

    def own_plan(self, depth, tokens, num_prefix):
        if len(self.prune_kept) != depth:
            raise ValueError(
                f"prune_kept lists {len(self.prune_kept)} blocks, but the model has {depth}; list them all"
            )
        amounts, count = [], tokens
        for block, kept in enumerate(map(min, self.prune_kept, self.merge_kept)):
            if kept <= num_prefix:
                raise ValueError(
                    f"the plan keeps {kept} tokens in block {block}, of which {num_prefix} are prefix tokens; "
                    f"keep at least {num_prefix + 1}"
                )
            amounts.append(max(0, count - kept))
            count -= amounts[-1]
        return amounts

    def kept(self, block, count, amount):
        """How many of `count` tokens are left after pruning and after merging."""
        if self.planned:
            pruned = min(count, self.prune_kept[block])
            return pruned, min(pruned, self.merge_kept[block])
        return count - amount // 2, count - amount

    def after_attention(self, tokens, signals, amount):
        prefix = tokens.num_prefix
        after_pruning, after_merging = self.kept(signals.block, tokens.count, amount)
        order = rank(signals.class_attention, prefix)[:, : after_pruning - prefix]
        if after_merging == after_pruning:
            return tokens.keep(order)
        hosts, sources = order[:, : after_merging - prefix], order[:, after_merging - prefix :]
        cosine, to = most_similar(tokens.x, sources, hosts)
        fixed = torch.arange(prefix, device=order.device).expand(order.shape[0], -1)
        matching = Matching(torch.cat([fixed, hosts], dim=1), sources, prefix + to)
        sizes = tokens.sizes
        mass = sizes.scatter(1, sources, take(sizes, sources) * cosine.to(sizes.dtype))
        merged = tokens.merge(matching, weight=torch.ones_like(sizes), mass=mass)
        warn_if_lost(merged.size)
        return replace(merged, size=merged.size.clamp(min=SMALLEST_SIZE))


def checked(name, numbers):
    """One list of a plan as a tuple, or None."""
    if numbers is None:
        return None
    whole = isinstance(numbers, (list, tuple)) and all(type(n) is int and n > 0 for n in numbers)
    if not whole or not numbers:
        raise ValueError(f"{name}={numbers!r} is no plan; give a list of whole numbers of tokens, one a block")
    return tuple(numbers)


def most_similar(x, sources, hosts):
    """Of the tokens at `hosts`, which is most like each at `sources`: its cosine and its place in `hosts`."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        x = full_precision(x)
        norm = x.norm(dim=2).clamp(min=1e-12)
        unit = take(x, sources) / take(norm, sources)[..., None]
        # a few products more, with tokens that are no hosts, cost less than copying the rows of the hosts
        cosine = unit @ x.transpose(1, 2) / norm[:, None]
        return cosine.take_along_dim(hosts[:, None], dim=2).max(dim=2)


def warn_if_lost(size):
    """Say where sizes had to be raised; not where asking would wait for a device or break a graph."""
    if size.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    lowest = float(size.min())
    if lowest <= 0:
        warnings.warn(
            f"DiffRate merged tokens of opposite direction: a size of {lowest:.3g} was raised to {SMALLEST_SIZE:g}",
            stacklevel=2,
        )
