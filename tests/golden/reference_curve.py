"""Methods whose patches stand along a curve, POMT and SAINT, written literally: numpy float64, one image, loops over
tokens."""

import math
from itertools import pairwise

import numpy as np
from reference import softmax
from reference_prune_merge import cosine, diffrate, falling, singles

from suite.tokens.curve import curve_order


def mat(r_per_block, prefix, grid):
    """The curve's order before the first block that merges; there and later the r most similar neighbours."""
    curve = [prefix + cell for cell in curve_order(*grid)]
    begun = False

    def reduce(block, x, sizes, keys, class_attention):
        nonlocal begun
        r = min(r_per_block[block], len(x) - prefix - 1)
        if r <= 0:
            return x, sizes, singles(len(x))
        patches = list(range(prefix, len(x))) if begun else curve
        begun = True
        similar = [cosine(keys[a], keys[b]) for a, b in pairwise(patches)]
        joined = sorted(range(len(similar)), key=lambda pair: -similar[pair])[:r]
        groups = singles(prefix)
        for place, patch in enumerate(patches):
            if place - 1 in joined:
                groups[-1].append(patch)
            else:
                groups.append([patch])
        merged = np.stack([sum(sizes[i] * x[i] for i in g) / sum(sizes[i] for i in g) for g in groups])
        return merged, np.array([sum(sizes[i] for i in g) for g in groups]), groups

    return reduce


def fused_scores(reference, patches, class_attention, window, alpha):
    """{patch: NAP's score}, of patches in their order, from the map of the block's attention."""
    received = [reference.map[:, :, patch].mean() for patch in patches]
    weights = {o: 1 / (abs(o) + 1) for o in range(-window, window + 1) if o}
    scores = {}
    for place, patch in enumerate(patches):
        near = sum(w * received[place + o] for o, w in weights.items() if 0 <= place + o < len(patches))
        scores[patch] = (1 - alpha) * class_attention[patch] + alpha * near / sum(weights.values())
    return scores


def nap(reference, keep, blocks, prefix, grid, *, fuse=True, window=1, alpha=0.1):
    curve = [prefix + cell for cell in curve_order(*grid)]

    def reduce(block, x, sizes, keys, class_attention):
        if block not in blocks:
            return x, sizes, singles(len(x))
        patches = curve if block == blocks[0] else list(range(prefix, len(x)))
        scores = fused_scores(reference, patches, class_attention, window, alpha)
        order = sorted(patches, key=lambda patch: -scores[patch])
        kept = math.ceil(keep * len(patches))
        groups = singles(prefix) + [[patch] for patch in order[:kept]]
        rows = [x[i] for [i] in groups]
        if fuse:
            groups.append(order[kept:])
            rows.append(sum(class_attention[i] * x[i] for i in order[kept:]))
        return np.stack(rows), np.array([sum(sizes[i] for i in g) for g in groups]), groups

    return reduce


def hynap(reference, prune_kept, merge_kept, prefix, grid, *, window=1, alpha=0.1):
    """DiffRate by another score, which sorts in every block; it is told the score in place of class attention."""
    curve, match = [prefix + cell for cell in curve_order(*grid)], diffrate(prune_kept, merge_kept, prefix)

    def reduce(block, x, sizes, keys, class_attention):
        patches = curve if block == 0 else list(range(prefix, len(x)))
        scores = fused_scores(reference, patches, class_attention, window, alpha)
        told = np.array([scores.get(position, 0.0) for position in range(len(x))])
        if prune_kept[block] < len(x) or merge_kept[block] < len(x):
            return match(block, x, sizes, keys, told)
        order = [*range(prefix), *falling(told, range(prefix, len(x)))]
        return x[order], sizes[order], [[i] for i in order]

    return reduce


def pomt(reference, r, active, prefix):
    def reduce(block, x, sizes, keys, class_attention):
        if block != active:
            return x, sizes, singles(len(x))
        patches = range(prefix, len(x))
        received = {j: sum(max(head[i, j] for head in reference.map) for i in patches) for j in patches}
        worth = softmax(np.array([row.max(axis=0).sum() for row in reference.values.transpose(1, 0, 2)]))
        most = max(received.values())
        order = sorted(patches, key=lambda j: -(received[j] / most + worth[j]))
        kept = len(patches) - r - 1
        groups = [*singles(prefix), *([j] for j in order[:kept]), order[kept:]]
        merged = np.stack([np.mean([x[i] for i in g], axis=0) for g in groups])
        return merged, np.array([sum(sizes[i] for i in g) for g in groups]), groups

    return reduce


def saint(taus, prefix, *, k=5, gamma=10.0):
    """taus: block -> threshold."""

    def reduce(block, x, sizes, keys, class_attention):
        count = len(x)
        if block not in taus:
            return x, sizes, singles(count)
        tau, even, odd = taus[block], range(prefix, count, 2), range(prefix + 1, count, 2)
        votes, scores = 0, {}
        for i in even:
            similar = [cosine(keys[i], keys[j]) for j in odd]
            near = [s for s in similar if s >= tau]
            votes += len(near) >= k
            scores[i] = len(near) * math.exp(gamma * (np.mean(near) - tau)) if near else np.mean(similar)
        if votes == 0:
            return x, sizes, singles(count)
        order = [*range(prefix), *sorted(even, key=lambda i: -scores[i])[votes:], *odd]
        return x[order], sizes[order], [[i] for i in order]

    return reduce
