"""The generalised Hilbert curve, and methods whose patches stand along it."""

from itertools import pairwise

import pytest
import torch
from reducer_steps import changes, images, tiny
from test_matching import angles, lists

from suite import RequestError, attach
from suite.reducers import make_reducer
from suite.reducers.mat import neighbour_matching
from suite.reducers.neighbours import support
from suite.tokens.curve import curve_order, curve_rows
from suite.tokens.state import Tokens


def step_lengths(height, width):
    cells = [divmod(cell, width) for cell in curve_order(height, width)]
    return [abs(a - c) + abs(b - d) for (a, b), (c, d) in pairwise(cells)]


@pytest.mark.parametrize("height", [1, 2, 3, 6, 7, 14, 16])
@pytest.mark.parametrize("width", [1, 2, 5, 6, 14, 24])
def test_every_cell_is_visited_once_beginning_in_the_corner(height, width):
    order = curve_order(height, width)
    assert order[0] == 0
    assert sorted(order) == list(range(height * width))
    assert max(step_lengths(height, width), default=1) <= 2


@pytest.mark.parametrize("grid", [(14, 14), (27, 27), (37, 37), (16, 10), (4, 24)])
def test_squares_and_even_grids_are_walked_from_neighbour_to_neighbour(grid):
    assert set(step_lengths(*grid)) == {1}


def test_the_curves_of_small_grids():
    assert curve_order(2, 2) == [0, 2, 3, 1]
    assert curve_order(4, 4) == [0, 1, 5, 4, 8, 12, 13, 9, 10, 14, 15, 11, 7, 6, 2, 3]
    assert curve_order(14, 14)[:20] == [0, 1, 15, 14, 28, 42, 43, 29, 30, 44, 45, 31, 17, 16, 2, 3, 4, 18, 19, 5]
    assert sum(length != 1 for length in step_lengths(13, 6)) == 1


def test_rows_along_the_curve_are_asked_for_until_tokens_were_taken_out():
    tokens = Tokens.start(torch.randn(2, 5, 3), 1)
    assert curve_rows(tokens, (2, 2)).tolist() == [[1, 3, 4, 2], [6, 8, 9, 7]]
    assert curve_rows(tokens.keep(torch.tensor([[1, 2, 3], [1, 2, 4]])), (2, 2)) is None
    with pytest.raises(ValueError, match="all 9 patches of the image, not 4"):
        curve_rows(tokens, (3, 3))


# MAT

FIVE = angles(0, 8, 20, 100, 105)  # cosines of neighbours .9903, .9781, .1736, .9962


def merged(r):
    x, matching = torch.tensor([[[1.0], [2.0], [6.0], [10.0], [20.0]]]), neighbour_matching(FIVE, r, 0)
    after = Tokens.start(x, 0).merge(matching)
    return after.x.flatten().tolist(), after.sizes[0].tolist(), after.owner[0].tolist()


def test_the_most_similar_neighbours_merge_in_place_and_runs_make_one_token():
    assert merged(2) == ([1.5, 6, 15], [2, 1, 2], [0, 0, 1, 2, 2])
    x, sizes, owner = merged(3)
    assert x == pytest.approx([3, 15])
    assert (sizes, owner) == ([3, 2], [0, 0, 0, 1, 1])
    x, sizes, owner = merged(4)
    assert x == pytest.approx([7.8])
    assert (sizes, owner) == ([5], [0] * 5)


def test_of_equally_similar_pairs_the_first_merge():
    assert lists(neighbour_matching(angles(0, 10, 20, 30), 1, 0))[1] == [1]


def test_a_chain_read_backwards_falls_into_the_same_groups():
    metric = torch.randn(1, 21, 4, generator=torch.Generator().manual_seed(3))
    for r in (1, 7, 19):
        groups = [
            Tokens.start(m, 1).merge(neighbour_matching(m, r, 1)).owner[0, 1:] for m in (metric, backwards(metric))
        ]
        assert torch.equal(groups[0].diff() == 0, groups[1].diff().flip(0) == 0)


def backwards(metric):
    return torch.cat([metric[:, :1], metric[:, 1:].flip(1)], dim=1)


def test_groups_are_neighbours_along_the_curve_in_every_block():
    seen, handle = changes(tiny(), "mat", "r=[9, 0, 20, 5]")
    assert handle.token_counts == [56, 56, 36, 31]
    owner = handle.tokens.owner[:, 1:][:, curve_order(8, 8)]
    assert (owner.diff(dim=1) >= 0).all()
    assert (owner.diff(dim=1) <= 1).all()
    for _, after in seen[1:]:
        assert (after.steps[-1].index_map().diff(dim=1) >= 0).all()


@torch.no_grad()
def test_one_block_may_leave_a_single_patch_which_is_the_mean_of_all():
    (before, after), *_ = changes(tiny(), "mat", "r=63@1")[0]
    torch.testing.assert_close(after.x[:, 1], before.x[:, 1:].mean(1))
    with pytest.raises(RequestError, match="at most 63"):
        attach(tiny(), "mat", "r=64@1")


@torch.no_grad()
def test_blocks_before_the_first_that_merges_do_not_see_the_order():
    model, x = tiny(), images()
    with attach(model, "mat", "r=9@2") as handle:
        late = model(x)
        assert handle.tokens.steps[0].count == 65
    with attach(model, "mat", "r=0"):
        assert torch.equal(model(x), tiny()(x))
    assert late.isfinite().all()


# NAP


def test_neighbours_support_a_patch_the_more_the_nearer_they_are():
    own, received = torch.tensor([[0.4, 0.3, 0.2, 0.1]]), torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    near = support(received, 1)
    torch.testing.assert_close(near, torch.tensor([[0.1, 0.2, 0.3, 0.15]]))
    torch.testing.assert_close(own.lerp(near, 0.2), torch.tensor([[0.34, 0.28, 0.22, 0.11]]))
    torch.testing.assert_close(support(received, 2), torch.tensor([[0.12, 0.20, 0.20, 0.13]]))
    assert support(received, 9).isfinite().all()  # farther than there are patches


@torch.no_grad()
def test_without_neighbours_it_is_the_selection_by_class_attention():
    model, x = tiny(), images()
    for fuse in (True, False):
        logits = []
        for name, options in (("evit", {}), ("nap", {"alpha": 0.0})):
            with attach(model, name, "keep=0.6", fuse=fuse, **options):
                logits.append(model(x))
        torch.testing.assert_close(*logits, rtol=0, atol=1e-5)


def test_neighbourhoods_that_mean_nothing_are_refused():
    for options, line in (({"window": 0}, "window=0 reaches no neighbour"), ({"alpha": 1.5}, "alpha=1.5 is no weight")):
        with pytest.raises(RequestError, match=line):
            make_reducer("nap", **options)
