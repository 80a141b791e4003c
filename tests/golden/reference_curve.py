"""Methods whose patches stand along a curve, written literally: numpy float64, one image, loops over tokens."""

from itertools import pairwise

import numpy as np
from reference_prune_merge import cosine, singles

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
