"""DCT truncation: the highest frequencies along the sequence of patches are left out."""

import math

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.constants import remembered
from suite.tokens.grouping import full_precision

GAINS = ("energy", "unit")


@register("dct")
class DCT(Reducer):
    """Shorten the sequence of patches at the end of every block by leaving out its r highest frequencies.

    Source: the adaptation to Vision Transformers of OpenToMe (third parties) of Fourier Transformer, He et al., ACL
    Findings 2023, arXiv 2305.15099, which is for text. Every channel goes through an orthonormal cosine transform along
    the T patches as they stand, in float32 at least, of which T - r coefficients go back through the inverse of that
    length: one product with a matrix that depends on shapes alone. New tokens are mixtures of all; a patch counts as
    part of the nearest one.

    When: a rival is wanted that goes by no content, only by what is smooth along the sequence.

    gain: 'energy' keeps the sum of squares, as the authors do it, so that amplitudes grow by sqrt(T / (T - r)) in every
        block; 'unit' (ours) keeps amplitudes.
    """

    reads_sizes = False
    proportional_attention = False
    exact_groups = False

    def __init__(self, gain: str = "energy") -> None:
        super().__init__()
        if gain not in GAINS:
            raise ValueError(f"gain={gain!r} is unknown; use {' or '.join(GAINS)}")
        self.gain = gain

    def capacity(self, count, num_prefix):
        return (count - num_prefix) // 2

    def after_block(self, tokens, signals, amount):
        patches, x = tokens.num_patches, tokens.x[:, tokens.num_prefix :]
        with torch.autocast(x.device.type, enabled=False):
            x = full_precision(x)
            mixed = truncation(patches, patches - amount, self.gain, x.dtype, x.device) @ x
        nearest = nearest_places(patches, patches - amount, x.device)
        return tokens.assign(mixed, nearest.expand(x.shape[0], -1))


@remembered
def truncation(count, kept, gain, dtype, device):
    """(K, T): DCT-II of length T, its first K coefficients, inverse of length K, all orthonormal.

    U_n[k, j] = c_k cos(k (2 j + 1) pi / 2 n), so an entry is a sum of products of two cosines: in closed form, where
    the two matrices multiplied would be counted wherever this is made in the course of a forward.
    """
    place = torch.arange(kept * count, dtype=torch.float64, device=device)
    new, old = place.div(count, rounding_mode="floor"), place % count
    new, old = (2 * new + 1) * math.pi / (2 * kept), (2 * old + 1) * math.pi / (2 * count)
    matrix = (waves(new + old, kept) + waves(new - old, kept)) / math.sqrt(kept * count)
    matrix = matrix * math.sqrt(kept / count) if gain == "unit" else matrix
    return matrix.view(kept, count).to(dtype)


def waves(angle, number):
    """1/2 + cos(x) + ... + cos((n - 1) x): Dirichlet's kernel."""
    half = (angle / 2).sin()
    return torch.where(half == 0, number - 0.5, ((number - 0.5) * angle).sin() / (2 * half))


@remembered
def nearest_places(count, kept, device):
    """(T,) int64 in [0, K): floor((j + 1/2) K / T)."""
    return (2 * torch.arange(count, device=device) + 1) * kept // (2 * count)
