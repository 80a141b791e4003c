"""CubistMerge on lines that were worked out by hand, beside loops over tokens, and on grids of models."""

import pytest
import torch
from reducer_steps import changes, images, tiny

from suite import RequestError, attach
from suite.reducers.cubist_merge import choose, larger, neighbour_cosines, thin
from suite.tokens.state import Tokens


def thinned(x, grid, r, across=False):
    """Of patches (P, C) alone: features and owners afterwards."""
    after = thin(Tokens.start(x[None], 0), grid, r, across)
    return after.x[0], after.owner[0].tolist()


def literal(line, r):
    """One line (t, C) by loops: what is left of it, and for each of its tokens the place of its owner."""
    unit = line / line.norm(dim=1, keepdim=True)
    cosine = [float(unit[j] @ unit[j + 1]) for j in range(len(line) - 1)]
    wishes = []
    for source in range(1, len(line), 2):
        left, right = cosine[source - 1], cosine[source] if source < len(cosine) else -torch.inf
        wishes.append((max(left, right), source, source - 1 if left >= right else source + 1))
    chosen = sorted(wishes, key=lambda wish: -wish[0])[:r]
    after = line.clone()
    for _, source, target in chosen[::2] + chosen[1::2]:
        after[target] = torch.where(line[source].abs() > line[target].abs(), line[source], line[target])
    gone = {source: target for _, source, target in chosen}
    kept = [place for place in range(len(line)) if place not in gone]
    return after[kept], [kept.index(gone.get(place, place)) for place in range(len(line))]


def test_a_line_of_four_by_hand():
    line = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.0, -2.0]])
    cosines = neighbour_cosines(line[None, None])[0, 0]
    torch.testing.assert_close(cosines, torch.tensor([0.994, 0.110, -1.0]), atol=5e-4, rtol=0)
    x, owner = thinned(line, (1, 4), 1)
    assert torch.equal(x, torch.tensor([[1.0, 0.1], [0.0, 1.0], [0.0, -2.0]]))
    assert owner == [0, 0, 1, 2]
    x, owner = thinned(line, (1, 4), 2)
    assert torch.equal(x, torch.tensor([[1.0, 0.1], [0.0, -2.0]]))
    assert owner == [0, 0, 1, 1]


def test_of_two_that_go_to_one_place_the_second_rank_is_written_last_and_both_are_owned():
    line = torch.tensor([[-1.0, 3.0], [1.0, 0.1], [1.0, 0.0], [2.0, 0.4], [-3.0, 1.0]])
    x, owner = thinned(line, (1, 5), 2)
    assert torch.equal(x[1], torch.tensor([2.0, 0.4]))  # by rank 1; 0.1 of rank 0 is lost
    assert owner == [0, 1, 1, 1, 2]


def test_equal_magnitudes_keep_the_target_s_sign_and_equal_cosines_go_left():
    assert torch.equal(larger(torch.tensor([-2.0, 3.0]), torch.tensor([2.0, -1.0])), torch.tensor([2.0, 3.0]))
    same = torch.ones(1, 1, 5, 2)
    kept, _, source, into = choose(neighbour_cosines(same)[0], 2)
    assert (kept.tolist(), source.tolist(), into.tolist()) == ([[0, 2, 4]], [[1, 3]], [[0, 1]])


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("grid", [(1, 2), (3, 7), (5, 8), (8, 5), (6, 6)])
def test_every_line_is_what_loops_make_of_it(grid, across):
    generator = torch.Generator().manual_seed(0)
    for digits in (None, 0):  # also small integers, of which many tie
        x = torch.randn(*grid, 3, generator=generator, dtype=torch.float64)
        x = x if digits is None else (2 * x).round() + 0.25
        lines = x.transpose(0, 1) if across else x
        for r in range(1, lines.shape[1] // 2 + 1):
            found, owner = thinned(x.flatten(0, 1), grid, r, across)
            expected = [literal(line, r) for line in lines]
            left = torch.stack([line for line, _ in expected])
            places = torch.arange(left.shape[0] * left.shape[1]).view(len(left), -1)
            if across:
                left, places = left.transpose(0, 1), places.view(left.shape[1], -1).T
            owners = torch.stack([place[owners] for place, (_, owners) in zip(places, expected, strict=True)])
            assert torch.equal(found, left.flatten(0, 1))
            assert owner == (owners.T if across else owners).flatten().tolist()


@torch.no_grad()
def test_rows_are_thinned_before_columns_and_every_line_loses_as_many():
    ((before, after),), handle = changes(tiny(), "cubist_merge", "lines=[3,2]")
    assert handle.token_counts == [65, 31, 31, 31]
    rows, columns = (step.index_map() for step in (before.steps + after.steps)[-2:])
    assert rows.shape[1] == 65
    assert columns.shape[1] == 1 + 8 * 6
    kept = torch.zeros(2, 65, dtype=torch.long).scatter_add_(
        1, after.steps[0].kept, torch.ones(2, 49, dtype=torch.long)
    )
    assert (kept[:, 1:].view(2, 8, 8).sum(2) == 6).all()
    assert (kept[:, 1:].view(2, 8, 8)[:, :, ::2] == 1).all()
    assert (after.sizes.sum(1) == 65).all()


@torch.no_grad()
def test_every_channel_has_a_value_that_a_member_of_its_group_had():
    ((before, after),), _ = changes(tiny(), "cubist_merge", "keep=0.4")
    owner = after.owner
    for sample in range(2):
        for place in range(after.count):
            members = before.x[sample, owner[sample] == place]
            assert (members == after.x[sample, place]).any(0).all()


def test_a_group_s_gradient_goes_to_the_value_that_stands_for_it_once():
    line = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.0, -2.0]], requires_grad=True)
    thinned(line, (1, 4), 2)[0].sum().backward()
    assert torch.equal(line.grad, torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))


def test_a_kept_fraction_and_lines_mean_the_same_grid():
    model = tiny()
    with torch.no_grad(), attach(model, "cubist_merge", "keep=0.55"):
        logits = model(images())
    with torch.no_grad(), attach(model, "cubist_merge", "lines=2@1") as handle:
        assert torch.equal(model(images()), logits)
    assert handle.schedule(65).grids[1] == ((8, 8), (6, 6))


@torch.no_grad()
def test_a_grid_that_is_not_square_is_thinned_as_it_is_and_a_broken_one_refused():
    model = tiny(img_size=(32, 24))
    with attach(model, "cubist_merge", "lines=[1,2]") as handle:
        model(torch.randn(1, 3, 32, 24))
        assert handle.token_counts == [49, 1 + 7 * 4, 29, 29]
    model = tiny(patch_drop_rate=0.25).train()
    with attach(model, "cubist_merge", "lines=1"), pytest.raises(RequestError, match="48 patches are no grid of 8 x 8"):
        model(images())
