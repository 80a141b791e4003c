"""Truncation of frequencies along the patches."""

import pytest
import torch
from scipy.fft import dct, idct
from tiny_vit import images, make_model

from suite import RequestError, attach
from suite.measure.flops import count_flops
from suite.reducers import make_reducer
from suite.reducers.dct import nearest_places, truncation

CPU = torch.device("cpu")


def matrix(count, kept, gain="energy"):
    return truncation(count, kept, gain, torch.float64, CPU)


def test_two_of_four_places():
    assert matrix(4, 2)[:, 0].tolist() == pytest.approx([0.81549, -0.10839], abs=1e-5)


@pytest.mark.parametrize(("count", "kept"), [(4, 2), (49, 45), (64, 33), (5, 4), (9, 9), (9, 5)])
def test_the_matrix_is_the_library_s_two_transforms(count, kept):
    x = torch.randn(count, 3, dtype=torch.float64)
    wanted = idct(dct(x.numpy(), axis=0, norm="ortho")[:kept], axis=0, norm="ortho")
    torch.testing.assert_close(matrix(count, kept) @ x, torch.from_numpy(wanted))
    assert (matrix(count, kept) @ x).norm() <= x.norm() * (1 + 1e-12)


def test_a_constant_grows_by_the_lost_length_unless_gain_is_unit():
    ones = torch.ones(196, 1, dtype=torch.float64)
    torch.testing.assert_close(matrix(196, 188) @ ones, (196 / 188) ** 0.5 * ones[:188])
    torch.testing.assert_close(matrix(196, 188, "unit") @ ones, ones[:188])


def test_a_patch_counts_as_part_of_the_nearest_token():
    assert nearest_places(4, 2, CPU).tolist() == [0, 0, 1, 1]
    assert nearest_places(5, 4, CPU).tolist() == [0, 1, 2, 2, 3]


@torch.no_grad()
def test_the_prefix_is_left_alone_and_the_last_block_is_truncated_too():
    model, changes = make_model(reg_tokens=2), []
    handle = attach(model, "dct", "r=6")
    handle.reducer.register_forward_hook(lambda _, given, out: changes.append((given[1], out)))
    with handle:
        model(images())
    assert handle.token_counts == [61, 55, 49, 43]
    for before, after in changes:
        assert torch.equal(after.x[:, :3], before.x[:, :3])
        kept, count = after.num_patches, before.num_patches
        wanted = matrix(count, kept).float() @ before.x[:, 3:]
        torch.testing.assert_close(after.x[:, 3:], wanted)


def test_a_block_loses_half_of_its_patches_at_most():
    model = make_model()
    with pytest.raises(RequestError, match="at most 32 of 65"):
        attach(model, "dct", "r=33")
    with torch.no_grad(), attach(model, "dct", "r=20") as handle:
        model(images())
    assert handle.token_counts == [45, 25, 13, 7]


def test_the_product_is_what_it_costs():
    model = make_model()
    with attach(model, "dct", "r=[6]"):
        report = count_flops(model, images=images(1))
    assert report.reducer == 64 * 58 * 32
    assert not report.disputed


def test_an_unknown_gain_is_refused():
    with pytest.raises(RequestError, match="energy or unit"):
        make_reducer("dct", gain="loud")
