"""G2TM: connected parts of grids beside scipy's, an example by hand, and what padding must not change."""

import math

import numpy as np
import pytest
import torch
from reducer_steps import changes, images, tiny
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from suite import RequestError, attach
from suite.reducers import make_reducer
from suite.reducers.g2tm import joined, part_means
from suite.tokens.components import grid_components


def by_scipy(right, down):
    """(H·W,) the smallest cell that each cell is connected with."""
    rows, columns = right.shape[0], down.shape[1]
    cell = np.arange(rows * columns).reshape(rows, columns)
    begin = np.concatenate([cell[:, :-1][right], cell[:-1][down]])
    end = np.concatenate([cell[:, 1:][right], cell[1:][down]])
    edges = coo_array((np.ones(len(begin)), (begin, end)), shape=(cell.size, cell.size))
    _, part = connected_components(edges, directed=False)
    return np.array([np.flatnonzero(part == own)[0] for own in part])


def spiral(side):
    """Joins along the one path from the corner to the middle: the longest way that a label may have to go."""
    right, down = np.zeros((side, side - 1), bool), np.zeros((side - 1, side), bool)
    seen, (row, column), (dy, dx) = {(0, 0)}, (0, 0), (0, 1)
    for _ in range(side * side - 1):
        if not (0 <= row + dy < side and 0 <= column + dx < side and (row + dy, column + dx) not in seen):
            dy, dx = dx, -dy
        if dy:
            down[min(row, row + dy), column] = True
        else:
            right[row, min(column, column + dx)] = True
        row, column = row + dy, column + dx
        seen.add((row, column))
    return right, down


@pytest.mark.parametrize("density", [0.2, 0.5, 0.6, 0.9])
@pytest.mark.parametrize("shape", [(1, 7), (9, 1), (14, 14), (11, 24)])
def test_parts_of_random_grids_are_scipys(shape, density):
    rows, columns = shape
    generator = np.random.default_rng(0)
    right = generator.random((20, rows, columns - 1)) < density
    down = generator.random((20, rows - 1, columns)) < density
    found = grid_components(torch.from_numpy(right), torch.from_numpy(down))
    assert (found.numpy() == np.stack([by_scipy(*of) for of in zip(right, down, strict=True)])).all()


@pytest.mark.parametrize("side", [2, 5, 14, 32])
@pytest.mark.parametrize("turned", [False, True])
def test_the_longest_path_in_a_grid_is_one_part(side, turned):
    right, down = spiral(side)
    if turned:
        right, down = right[::-1, ::-1].copy(), down[::-1, ::-1].copy()
    assert not grid_components(torch.from_numpy(right)[None], torch.from_numpy(down)[None]).any()


def test_four_patches_by_hand():
    angles = {0: 0.0, 1: math.acos(0.9), 2: -math.acos(0.5)}
    angles[3] = angles[1] + math.acos(0.9)
    directions = torch.tensor([[math.cos(angles[i]), math.sin(angles[i])] for i in range(4)])
    lengths = torch.tensor([1.0, 2.0, 1.0, 4.0])
    x = (lengths[:, None] * directions).double()
    right, down = joined(x.view(1, 2, 2, 2), 0.86)
    assert (right.tolist(), down.tolist()) == ([[[True], [False]]], [[[False, True]]])
    label = grid_components(right, down)
    assert label.tolist() == [[0, 0, 2, 0]]
    means = part_means(x[None], torch.tensor([[0, 0, 1, 0]]), 2)[0]
    torch.testing.assert_close(means, torch.stack([x[[0, 1, 3]].mean(0), x[2]]))


@torch.no_grad()
def test_parts_are_connected_means_in_the_order_of_their_first_patches():
    ((before, after),), handle = changes(tiny(), "g2tm", "tau=0.3@0")
    assert before.count == 65 > after.count
    for sample in range(2):
        owner, x = after.owner[sample, 1:] - 1, before.x[sample, 1:]
        firsts = [int((owner == part).nonzero()[0]) for part in range(int(after.counts[sample]) - 1)]
        assert firsts == sorted(firsts)
        right, down = joined(x.view(1, 8, 8, -1), 0.3)
        assert (by_scipy(right[0].numpy(), down[0].numpy()) == np.array(firsts)[owner.numpy()]).all()
        means = torch.stack([x[owner == part].mean(0) for part in range(len(firsts))])
        torch.testing.assert_close(after.x[sample, 1 : 1 + len(firsts)], means)
    assert after.valid is not None
    assert after.sizes.sum(1).tolist() == [65, 65]
    assert handle.planned_counts is None


@pytest.mark.parametrize("attention", ["plain", "proportional", "inverse"])
@torch.no_grad()
def test_images_of_a_batch_are_what_they_are_alone_however_attention_goes(attention):
    model, both = tiny(global_pool="avg"), images()
    with attach(model, "g2tm", "tau=0.3@0", attention=attention) as handle:
        together = model(both)
        assert handle.tokens.valid is not None
        alone = torch.cat([model(both[:1]), model(both[1:])])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_inverse_attention_takes_off_what_proportional_attention_adds():
    (_, after), *_ = changes(tiny(), "g2tm", "tau=0.3@0")[0]
    sized = after.with_sizes()
    plain, more, less = (sized.attention_bias(factor) for factor in (0, 1, -1))
    there = after.valid[:, None, None]
    torch.testing.assert_close((more + less)[there], torch.zeros_like(more)[there])
    assert torch.equal(more[there], sized.size.log()[after.valid])
    for bias in (plain, more, less):
        assert (bias[~there] == -torch.inf).all()


@torch.no_grad()
def test_a_second_block_joins_parts_that_touch():
    seen, _ = changes(tiny(), "g2tm", "tau=[0.3,0.1]@0,1")
    assert len(seen) == 2
    (_, first), (before, after) = seen
    assert (after.counts < first.counts).all()
    for sample in range(2):
        was, now = before.owner[sample], after.owner[sample]
        for token in was.unique().tolist():
            assert len(now[was == token].unique()) == 1
    assert after.sizes.sum(1).tolist() == [65, 65]


@torch.no_grad()
def test_at_a_threshold_that_nothing_reaches_the_model_is_what_it_was():
    model = tiny()
    whole = model(images())
    with attach(model, "g2tm", "tau=0.999@0") as handle:
        assert torch.equal(model(images()), whole)
        assert handle.token_counts == [65] * 4


def test_what_is_no_attention_is_refused_with_what_is():
    with pytest.raises(RequestError, match="attention='none' is none of plain, proportional, inverse"):
        make_reducer("g2tm", attention="none")
