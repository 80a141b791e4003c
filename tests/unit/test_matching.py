"""Bipartite soft matching on examples that were worked out by hand (even positions are A, odd positions B)."""

import pytest
import torch
import torch.nn.functional as F

from suite.tokens.matching import bipartite_soft_matching


def angles(*degrees):
    """(1, N, 2) unit vectors, so that similarity is the cosine of the angle between two of them."""
    turn = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([turn.cos(), turn.sin()], dim=-1)[None]


def lists(matching):
    return [part[0].tolist() for part in (matching.kept, matching.source, matching.target)]


def test_five_tokens_with_a_class_token_merge_the_nearest_pair():
    # A: class token 0, tokens 2 (50 deg) and 4 (100 deg); B: 1 (10 deg) and 3 (95 deg).
    # 2 is nearest to 1 (40 deg; 3 is 45 deg away), 4 to 3 (5 deg). r = 1 merges 4 into 3.
    kept, source, target = lists(bipartite_soft_matching(angles(0, 10, 50, 95, 100), 1, protected=1))
    assert source == [4]
    assert kept == [0, 2, 1, 3]  # class token, unmerged A ascending, B
    assert target == [3]  # where token 3 stands afterwards


def test_two_sources_may_share_a_target():
    kept, source, target = lists(bipartite_soft_matching(angles(0, 10, 12, 95, 11), 2, protected=1))
    assert source == [4, 2]  # the better match first
    assert kept == [0, 1, 3]
    assert target == [1, 1]


def test_the_class_token_never_merges_although_it_is_the_most_similar():
    kept, source, target = lists(bipartite_soft_matching(angles(10, 10, 80, 170, 40), 2, protected=1))
    assert source == [4, 2]
    assert (kept, target) == ([0, 1, 3], [1, 1])


def test_a_distillation_token_is_no_target_although_it_is_the_most_similar():
    # A: class 0, 2 (30 deg), 4 (80 deg); B: distillation 1 (30 deg), 3 (50 deg), 5 (170 deg).
    kept, source, target = lists(bipartite_soft_matching(angles(0, 30, 30, 50, 80, 170), 1, protected=2))
    assert source == [2]  # 20 degrees to token 3; token 4 is 30 degrees away from it
    assert kept == [0, 1, 4, 3, 5]
    assert target == [3]


@pytest.mark.parametrize("protected", [3, 4, 5])
def test_registers_stay_first_and_apart(protected):
    metric = angles(*[20] * protected, 20, 21, 90, 91, 160, 161)
    matching = bipartite_soft_matching(metric, 3, protected=protected)
    kept, source, target = lists(matching)
    assert kept[:protected] == list(range(protected))
    assert min(source) >= protected
    assert min(target) >= protected
    pairs = {frozenset((s, kept[t])) for s, t in zip(source, target, strict=True)}
    assert pairs == {frozenset((protected + i, protected + i + 1)) for i in (0, 2, 4)}


def test_without_a_class_token_unmerged_tokens_are_left_in_order_of_similarity():
    # A: 0 (0 deg), 2 (50 deg), 4 (100 deg); B: 1 (30 deg), 3 (102 deg), 5 (200 deg): distances 30, 20, 2.
    kept, source, target = lists(bipartite_soft_matching(angles(0, 30, 50, 102, 100, 200), 1, protected=0))
    assert source == [4]
    assert kept == [2, 0, 1, 3, 5]
    assert target == [3]


def test_ties_go_to_the_lowest_position():
    kept, source, target = lists(bipartite_soft_matching(torch.ones(1, 7, 3), 2, protected=1))
    assert source == [2, 4]
    assert (kept, target) == ([0, 6, 1, 3, 5], [2, 2])


def test_rows_of_zeros_give_no_nan_and_are_matched_last():
    metric = angles(0, 10, 0, 95, 94)
    metric[:, 2] = 0
    kept, source, target = lists(bipartite_soft_matching(metric, 2, protected=1))
    assert source == [4, 2]  # similarity 0 is below that of any near pair
    assert (kept, target) == ([0, 1, 3], [2, 1])
    everything = bipartite_soft_matching(torch.zeros(1, 6, 2), 2, protected=1)
    assert sorted(everything.kept[0].tolist() + everything.source[0].tolist()) == list(range(6))


@pytest.mark.parametrize(("count", "protected", "most"), [(197, 1, 98), (198, 2, 98), (6, 1, 2), (7, 5, 1), (6, 5, 0)])
def test_no_more_than_half_of_the_patches_are_merged(count, protected, most):
    metric = torch.randn(2, count, 4, generator=torch.Generator().manual_seed(count))
    matching = bipartite_soft_matching(metric, 10**6, protected=protected)
    assert matching.source.shape == (2, most)
    assert matching.kept.shape == (2, count - most)
    for kept, source in zip(matching.kept, matching.source, strict=True):
        assert sorted([*kept.tolist(), *source.tolist()]) == list(range(count))


@pytest.mark.parametrize("r", [0, -3])
def test_merging_nothing_keeps_the_order(r):
    kept, source, target = lists(bipartite_soft_matching(torch.randn(1, 5, 2), r, protected=1))
    assert (kept, source, target) == ([0, 1, 2, 3, 4], [], [])


def test_length_does_not_count_and_samples_are_matched_apart():
    metric = torch.cat([angles(0, 10, 50, 95, 100), angles(0, 10, 15, 95, 150)])
    matching = bipartite_soft_matching(metric * torch.tensor([1.0, 50, 3, 0.01, 9])[None, :, None], 1, protected=1)
    assert matching.source.tolist() == [[4], [2]]
    assert matching.target.tolist() == [[3], [2]]


def test_no_gradient_flows_through_decisions():
    metric = torch.randn(1, 8, 4, requires_grad=True)
    matching = bipartite_soft_matching(metric, 2, protected=1)
    assert not any(part.requires_grad for part in (matching.kept, matching.source, matching.target))


def test_similarity_is_single_precision_even_under_autocast():
    generator = torch.Generator().manual_seed(3)
    metric = F.normalize(torch.randn(4, 65, 16, generator=generator), dim=-1)
    plain = bipartite_soft_matching(metric, 20, protected=1)
    with torch.autocast("cpu", torch.bfloat16):
        under = bipartite_soft_matching(metric, 20, protected=1)
    assert torch.equal(plain.source, under.source)
    assert torch.equal(plain.target, under.target)
