"""A mask's digest is the sum of classes times splitmix64's outputs, modulo 2^64, and tells masks apart."""

from __future__ import annotations

import torch

from tasks.mask_digest import mask_digest, position_weights

CPU = torch.device("cpu")


def splitmix64(count: int) -> list[int]:
    """As its authors write it, in whole numbers of any size."""
    state, found = 0, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        bits = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(bits ^ (bits >> 31))
    return found


def test_weights_are_splitmix64s_outputs():
    weights = [weight % 2**64 for weight in position_weights(1000, CPU).tolist()]
    assert weights == splitmix64(1000)
    assert weights[0] == 0xE220A8397B1DCDAF  # what its authors' program prints first of seed 0


def test_a_digest_is_exact_modulo_2_to_the_64():
    mask = torch.randint(256, (37, 41), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    expected = sum(value * weight for value, weight in zip(mask.flatten().tolist(), splitmix64(37 * 41), strict=True))
    assert expected > 2**70
    for count in (37 * 41, 5000):  # weights of a larger image of the batch begin like those of this one
        assert int(mask_digest(mask, position_weights(count, CPU))) % 2**64 == expected % 2**64


def test_masks_that_differ_in_any_one_or_two_pixels_have_different_digests():
    weights = position_weights(64, CPU)
    mask = torch.arange(64, dtype=torch.uint8).view(8, 8) % 7
    digests = [int(mask_digest(mask, weights))]
    for first in range(64):
        for second in range(first, 64):
            other = mask.clone().flatten()
            other[first] += 1
            other[second] += 2  # of a pixel that is both: 3
            digests.append(int(mask_digest(other.view(8, 8), weights)))
    assert len(set(digests)) == len(digests) == 1 + 64 * 65 // 2
