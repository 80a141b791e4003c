"""AdaMerge by the example that was worked out by hand, and what its decisions promise."""

import pytest
import torch
from reducer_steps import changes, images, tiny

from suite import RequestError, attach
from suite.measure.flops import count_flops
from suite.reducers import make_reducer
from suite.reducers.adamerge import pointers, salience_of, salient_means
from suite.tokens.state import Tokens

X = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 2.0]]], dtype=torch.float64)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Block:
    """What the method reads of a block."""

    block = 0


def test_four_patches_by_hand():
    present = torch.ones(1, 4, dtype=torch.bool)
    salience = salience_of(X, present)
    torch.testing.assert_close(salience, torch.tensor([[0.4379, 0, 1, 0.8841]]).double(), atol=5e-5, rtol=0)
    best, to, first = pointers(X, salience, present)
    torch.testing.assert_close(best[:, :2], torch.tensor([[0.3916, 0.0]]).double(), atol=5e-5, rtol=0)
    assert (to[0, 0].item(), first.tolist()) == (2, [[True, True, False, False]])
    made = make_reducer("adamerge", mean=[0.3], deviation=[0.2])
    after = made.before_block(Tokens.start(X, 0), Block(), 4)
    torch.testing.assert_close(after.x, torch.tensor([[[0, 1], [2, 0.6955], [0, 2]]]).double(), atol=5e-5, rtol=0)
    assert after.owner.tolist() == [[1, 0, 1, 2]]


def test_groups_are_means_by_salience_however_small_plain_ones_without_any_and_lone_patches_are_copied():
    target, present = torch.tensor([[0, 0, 1, 2, 2]]), torch.ones(1, 5, dtype=torch.bool)
    x, salience = noise(1, 5, 3), torch.tensor([[0.0, 0.0, 0.0, 1e-30, 3e-30]])
    means = salient_means(x, salience, target, present, torch.tensor([[1, 2, 4]]))
    torch.testing.assert_close(means[0, 0], (x[0, 0] + x[0, 1]) / 2)
    assert torch.equal(means[0, 1], x[0, 2])
    torch.testing.assert_close(means[0, 2], (x[0, 3] + 3 * x[0, 4]) / 4)


def test_a_patch_points_at_its_most_similar_one_however_small_its_salience():
    x, present = noise(1, 40, 8), torch.ones(1, 40, dtype=torch.bool)
    _, wanted, _ = pointers(x, torch.ones(1, 40), present)
    _, found, _ = pointers(x, torch.full((1, 40), 1e-45), present)
    assert torch.equal(found[:, :20], wanted[:, :20])


def test_salience_of_cosines_does_not_depend_on_how_long_tokens_are():
    for asked, same in (("cosines", True), ("products", False)):
        made = make_reducer("adamerge", salience=asked)
        x = noise(2, 20, 6).double()
        longer = x * torch.tensor([[1.0], [5.0]] * 10, dtype=torch.float64)
        owners = [made.before_block(Tokens.start(given, 0), Block(), 5).owner for given in (x, longer)]
        assert torch.equal(*owners) == same


@torch.no_grad()
def test_padding_changes_nothing_and_amounts_are_of_each_image():
    model, both = tiny(), images(4)
    statistics = {"mean": [0.2] * 4, "deviation": [0.02] * 4}
    with attach(model, "adamerge", "r=20", **statistics) as handle:
        together, counts = model(both), handle.tokens.counts.tolist()
        assert handle.tokens.valid is not None
        for row in range(4):
            torch.testing.assert_close(model(both[row : row + 1])[0], together[row], atol=1e-5, rtol=1e-5)
            assert handle.tokens.count == counts[row]


@torch.no_grad()
def test_no_block_takes_out_more_than_the_rate_and_the_more_redundant_the_more():
    counts = []
    for mean in (9.0, 0.0, -9.0):
        seen, _ = changes(tiny(), "adamerge", "r=10@1", mean=[mean] * 4, deviation=[1.0] * 4)
        counts.append(65 - seen[0][1].count)
    assert counts[0] == 0 < counts[1] < counts[2] == 9  # rounded down


@torch.no_grad()
def test_a_block_that_takes_nothing_out_changes_nothing_and_all_counters_see_what_it_cost():
    model, both = tiny(), images(2)
    plain = model(both)
    with attach(model, "adamerge", "r=10", mean=[9.0] * 4, deviation=[1.0] * 4) as handle:
        assert torch.equal(model(both), plain)
        assert handle.token_counts == [65] * 4
        report = count_flops(model, images=both)
    assert report.reducer > 0
    assert not report.disputed


@torch.no_grad()
def test_without_statistics_every_block_takes_out_all_of_the_rate():
    with attach(tiny(), "adamerge", "r=10") as handle:
        handle.model(images())
        assert handle.token_counts == [55, 45, 35, 25]
        assert handle.tokens.valid is None
        assert not handle.reducer.trained


def test_statistics_that_do_not_fit_are_refused():
    with pytest.raises(RequestError, match="give both mean and deviation"):
        make_reducer("adamerge", mean=[0.1])
    with pytest.raises(RequestError, match="salience 'norms' is unknown; use products or cosines"):
        make_reducer("adamerge", salience="norms")
    with pytest.raises(RequestError, match="are above 0"):
        make_reducer("adamerge", mean=[0.1], deviation=[0.0])
    with pytest.raises(RequestError, match="statistics are of 3 blocks; the model has 4"):
        attach(tiny(), "adamerge", "r=4", mean=[0.1] * 3, deviation=[0.1] * 3)
    assert not make_reducer("adamerge").trained
