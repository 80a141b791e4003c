"""POMT and SAINT on examples that were worked out by hand, for an image alone and for a batch that decides together."""

import math

import pytest
import torch
from reducer_steps import changes, images, planned, tiny
from torch.testing import assert_close

from suite import RequestError, attach
from suite.reducers import make_reducer
from suite.reducers.pomt import importance
from suite.reducers.saint import arrangement, redundancy

# POMT


def attention_of(*received):
    """(1, 1, N, N) a class token and patches, the first of which pays all of the attention that patches receive."""
    attention = torch.zeros(1, 1, len(received) + 1, len(received) + 1)
    attention[0, 0, 1, 1:] = torch.tensor(received)
    attention[0, 0, 0] = attention[0, 0, :, 0] = 9.0  # what the class token pays and receives counts for nothing
    return attention


def test_scores_are_attention_by_the_largest_and_shares_of_equal_values():
    score = importance(attention_of(0.9, 0.6, 0.3), torch.ones(1, 1, 4, 2), 1)
    assert_close(score, torch.tensor([[1, 2 / 3, 1 / 3]]) + 0.25)


def test_of_several_heads_the_largest_counts_before_anything_is_summed():
    attention = torch.cat([attention_of(0.9, 0.1), attention_of(0.2, 0.6)], dim=1)
    values = torch.tensor([[[0.0, 1.0], [0.0, 0.0], [5.0, 1.0]], [[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]])[None]
    worth = torch.tensor([[1.0, 2.0, 6.0]]).softmax(1)[:, 1:]
    assert_close(importance(attention, values, 1), torch.tensor([[1, 2 / 3]]) + worth)


def test_a_batch_that_decides_together_divides_by_its_largest_sum():
    attention, values = torch.cat([attention_of(0.9, 0.6), attention_of(0.3, 0.15)]), torch.zeros(2, 1, 3, 2)
    assert_close(importance(attention, values, 1) - 1 / 3, torch.tensor([[1, 2 / 3], [1, 0.5]]))
    assert_close(importance(attention, values, 1, per_batch=True) - 1 / 3, torch.tensor([[1, 2 / 3], [1 / 3, 1 / 6]]))


def test_it_acts_once_in_block_three_unless_told_otherwise():
    assert planned("pomt", "r=56") == [197] * 3 + [141] * 9
    assert planned("pomt", "r=56@2") == [197] * 2 + [141] * 10
    assert planned("pomt", "r=5", depth=2) == [197, 192]
    with pytest.raises(
        RequestError, match="at most 193 of 197"
    ):  # the class token, two patches, one token for the others
        planned("pomt", "r=194")


def test_the_last_token_is_the_plain_mean_of_those_that_left():
    ((before, after),), handle = changes(tiny(), "pomt", "r=20")
    assert handle.token_counts == [65, 65, 65, 45]
    owner = after.steps[-1].index_map()
    for sample in range(2):
        left = before.x[sample, owner[sample] == 44]
        assert len(left) == 21
        assert_close(after.x[sample, -1], left.mean(0))
    assert torch.equal(after.x[:, 0], before.x[:, 0])


# SAINT

TOY = torch.tensor([[[1.0, 0], [1, 0], [0.8, 0.6], [1, 0], [0, 1], [0, 1]]], dtype=torch.float64)


def left(keys, tau=0.7, k=2, per_batch=False, present=None):
    """Votes, and per image the places that stay in their order."""
    votes, score = redundancy(keys, tau, k, 10.0, present)
    if per_batch:
        votes = (votes.sum() // len(votes)).expand_as(votes)
    order, staying = arrangement(score, votes, keys.shape[1], present)
    return votes.flatten().tolist(), [places[stay].tolist() for places, stay in zip(order, staying, strict=True)]


def test_a_voter_may_stay_where_another_has_the_higher_score():
    votes, score = redundancy(TOY, 0.7, 2, 10.0)
    assert votes.item() == 2
    assert score[0].tolist() == pytest.approx([2 * math.exp(3), 2 * math.exp(1), math.exp(3)])
    assert left(TOY) == ([2], [[2, 1, 3, 5]])


def test_a_batch_drops_the_mean_of_its_votes_and_an_image_its_own():
    apart = torch.eye(2).repeat(3, 1)[None]  # even places at right angles to odd ones: nobody has a neighbour
    both = torch.cat([TOY, apart.to(TOY)])
    assert left(both) == ([2, 0], [[2, 1, 3, 5], [0, 1, 2, 3, 4, 5]])
    votes, (first, second) = left(both, per_batch=True)
    assert votes == [1, 1]
    assert first == [4, 2, 1, 3, 5]
    assert second == [2, 4, 1, 3, 5]  # all alike: the first goes


def test_padding_has_no_neighbours_and_no_vote():
    keys, present = torch.cat([TOY, TOY[:, :2]], dim=1), torch.tensor([[True] * 6 + [False] * 2])
    assert left(keys, present=present) == left(TOY)


def test_a_patch_without_neighbours_ranks_below_any_that_has_one():
    keys = torch.tensor([[[1.0, 0], [0.6, 0.8], [0, 1], [0.6, 0.8]]])
    _, score = redundancy(keys, 0.7, 1, 10.0)
    assert score[0].tolist() == pytest.approx([0.6, 2 * math.exp(1)])


@torch.no_grad()
def test_what_nobody_votes_for_changes_nothing():
    model, x = tiny(), images()
    whole = model(x)
    for rate, k in (("tau=0.999@0,1", 33), ("tau=1", 5)):
        with attach(model, "saint", rate, k=k) as handle:
            assert torch.equal(model(x), whole)
            assert handle.tokens.steps == ()


@torch.no_grad()
def test_odd_places_stay_in_order_and_every_token_is_one_that_was():
    seen, handle = changes(tiny(), "saint", "tau=-1@0,1", k=1)  # all are neighbours: every even place goes
    assert handle.token_counts == [33, 17, 17, 17]
    before, after = seen[0]
    assert torch.equal(after.x[:, 1:], before.x[:, 2::2])
    assert handle.tokens.valid is None


@torch.no_grad()
def test_padded_samples_are_what_they_are_alone():
    model, x = tiny(), images(4)
    x[:2] = x[:2, :, :, :1]  # stripes: many alike
    with attach(model, "saint", "tau=0.6@0,1,2") as handle:
        together, counts = model(x), handle.tokens.counts
        assert handle.tokens.valid is not None
        for image, logits, count in zip(x, together, counts, strict=True):
            assert_close(model(image[None])[0], logits, rtol=1e-4, atol=1e-5)
            assert handle.tokens.count == count


def test_it_acts_in_the_first_half_of_the_blocks():
    assert make_reducer("saint").active_blocks("tau", 12) == tuple(range(6))
    for options, line in (({"k": 0}, "k=0"), ({"gamma": -1.0}, "gamma=-1.0")):
        with pytest.raises(RequestError, match=line):
            make_reducer("saint", **options)
