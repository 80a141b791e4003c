"""The PageRank of attention, heads combined and repetitions found: worked out by hand."""

import pytest
import torch
from tiny_vit import images, make_model

from suite import RequestError, attach
from suite.reducers import make_reducer
from suite.reducers.zero_tprune import among, combined, pagerank, repetitions

MAP = torch.tensor([[[[0.5, 0.5, 0], [0.25, 0.5, 0.25], [0, 0.5, 0.5]]]], dtype=torch.float64)


def random_map(count=9, heads=2, seed=3):
    logits = 2 * torch.randn(2, heads, count, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(dim=-1)


def test_one_step_from_equal_scores_and_from_a_class_token_ahead():
    assert pagerank(MAP, 0, 1).flatten().tolist() == pytest.approx([0.25, 0.5, 0.25])
    assert pagerank(MAP, 0, 5).flatten().tolist() == pytest.approx([0.25, 0.5, 0.25])  # already the fixed point
    assert pagerank(MAP, 1, 0).flatten().tolist() == pytest.approx([0.46410, 0.26795, 0.26795], abs=1e-5)
    assert pagerank(MAP, 1, 1).flatten().tolist() == pytest.approx([0.29904, 0.5, 0.20096], abs=1e-5)


def test_scores_sum_to_one_and_end_in_the_left_eigenvector():
    attention = random_map()
    for iterations in (1, 2, 200):
        score = pagerank(attention, 1, iterations)
        torch.testing.assert_close(score.sum(2), torch.ones(2, 2, dtype=torch.float64))
    assert (score - (score[:, :, None] @ attention)[:, :, 0]).abs().max() < 1e-6


def test_a_patch_that_nobody_attends_to_ends_at_zero_after_one_step():
    attention = random_map()
    attention[..., 4] = 0
    assert (pagerank(attention / attention.sum(3, keepdim=True), 1, 1)[:, :, 4] == 0).all()


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [((0.01, 0.7), [2, 0, 1]), ((0, 1), [1.5811, 0.7071, 1]), ((0.9, 1), [1.5811, 0.7071, 1])],
)
def test_heads_count_by_their_variance_and_all_do_where_none_passes(bounds, wanted):
    scores = torch.tensor([[[2.0, 0.0, 1.0], [1.0, 1.0, 1.0]]])  # variances 2/3 and 0
    for scale in (1, 1 / 197):
        assert combined(scale * scores, *bounds)[0].tolist() == pytest.approx(wanted, abs=1e-4)


def test_of_two_alike_the_one_of_the_lower_half_goes():
    keys = torch.eye(6)[None].clone()
    keys[0, 5] = keys[0, 1]
    ranked = torch.tensor([[1, 0, 2, 3, 4, 5]])
    assert repetitions(keys, ranked, 1).tolist() == [[5]]
    assert repetitions(keys, ranked, 2).tolist() == [[5, 3]]  # equally unlike all: the lower place


def test_an_odd_number_leaves_the_upper_half_one_more():
    keys = torch.ones(1, 5, 2)
    assert repetitions(keys, torch.tensor([[4, 3, 2, 1, 0]]), 2).tolist() == [[0, 1]]


def test_what_is_left_of_a_map_has_rows_of_sum_one():
    attention = random_map()
    left = among(attention, torch.tensor([[0, 3, 5], [1, 2, 7]]), 1)
    torch.testing.assert_close(left.sum(3), torch.ones(2, 2, 4, dtype=torch.float64))
    rows = attention[1][:, [0, 2, 3, 8]][:, :, [0, 2, 3, 8]]
    torch.testing.assert_close(left[1], rows / rows.sum(2, keepdim=True))


def run(rate, batch=None, **options):
    model = make_model()
    with torch.no_grad(), attach(model, "zero_tprune", rate, **options) as handle:
        model(images() if batch is None else batch)
    return handle.tokens.owner, handle.token_counts


def test_counts_are_known_before_the_run_and_kept_patches_stay_in_order():
    owner, counts = run("keep=0.7")
    # int(0.7 (64 - 3)), int(0.7 (42 - 2)), int(0.7 (28 - 1))
    assert counts == [65, 43, 29, 19]
    for row in owner:
        assert row[row >= 0].tolist() == list(range(19))
    assert run("keep=0.7", similar=10)[1] == [65, 38, 19, 7]  # int(0.7 54), int(0.7 27), and of 18 half


def test_similar_patches_alone_go_where_the_rate_takes_no_more():
    repeated, _ = run("r=9@2", similar=9)
    ranked, _ = run("r=9@2", similar=0)
    assert not torch.equal(repeated, ranked)
    assert torch.equal(repeated, run("r=9@2", similar=50, iterations=3)[0])  # no second ranking


def test_numbers_may_be_given_for_each_block_that_the_rate_acts_in():
    assert torch.equal(
        run("r=9@1,3", similar=[9, 0], iterations=[0, 4])[0], run("r=9@1,3", similar=[9, 0], iterations=[7, 4])[0]
    )
    with pytest.raises(RequestError, match="similar lists 1 numbers, but the rate acts in 2 blocks"):
        run("r=9@1,3", similar=[9])
    with pytest.raises(RequestError, match="similar lists 1 numbers, but the rate acts in more blocks"):
        run("keep=0.7@1,3", similar=[9])
    for wrong in ({"similar": -1}, {"similar": [1, 0.5]}, {"iterations": True}):
        with pytest.raises(RequestError, match="no whole number"):
            make_reducer("zero_tprune", **wrong)


def test_block_0_has_no_map_before_it_and_is_refused():
    with pytest.raises(RequestError, match=r"'zero_tprune' .*begin at block 1"):
        attach(make_model(), "zero_tprune", "r=[5]")
