"""ToFu, PiToMe and DiffRate: examples worked out by hand, promises, and refusals."""

import math
import warnings

import pytest
import torch
from reducer_steps import changes, groups, images, planned, tiny
from torch.testing import assert_close

from suite import RequestError, attach
from suite.reducers import make_reducer
from suite.reducers.kept_counts import SMALLEST_SIZE, most_similar
from suite.reducers.pitome import energy_matching
from suite.reducers.tofu import weighted_mlerp
from suite.tokens.grouping import Matching, mlerp


def pair(kept, source):
    """One group: `source` merges into `kept`, (1, 2, C)."""
    x = torch.tensor([[kept, source]], dtype=torch.float32)
    return x, Matching(torch.tensor([[0]]), torch.tensor([[1]]), torch.tensor([[0]]))


# ToFu


def test_mlerp_takes_the_mean_direction_and_the_largest_norm():
    x, matching = pair([0.0, 4.0], [3.0, 0.0])
    for merged in (mlerp(x, matching), weighted_mlerp(x, matching, torch.ones(1, 2))):
        assert_close(merged, torch.tensor([[[2.4, 3.2]]]))  # norm 4; over the old norm of (0, 4) it would be (1.5, 2)


def test_weights_turn_the_direction_of_mlerp_and_leave_its_norm():
    x, matching = pair([0.0, 4.0], [3.0, 0.0])
    merged = weighted_mlerp(x, matching, torch.tensor([[3.0, 4.0]]))
    assert_close(merged, torch.full((1, 1, 2), 4 / math.sqrt(2)))


def test_tokens_that_cancel_out_merge_to_something_finite():
    x, matching = pair([1.0, -2.0], [-1.0, 2.0])
    assert mlerp(x, matching).isfinite().all()
    assert weighted_mlerp(x, matching, torch.ones(1, 2)).isfinite().all()


@pytest.mark.parametrize("merge", ["mlerp", "average", "avg"])
def test_early_blocks_prune_bit_for_bit_and_late_blocks_merge(merge):
    seen, _ = changes(tiny(), "tofu", "r=9", merge=merge)
    assert len(seen) == 4
    for block, (before, after) in enumerate(seen):
        for sample in range(2):
            inputs = {tuple(row.tolist()) for row in before.x[sample]}
            for row, members in groups(before, after, sample):
                if block < 2 or len(members) == 1:
                    assert tuple(row.tolist()) in inputs
                    continue
                assert tuple(row.tolist()) not in inputs
                if merge == "mlerp":
                    assert_close(row.norm(), members.norm(dim=1).max(), rtol=1e-5, atol=0)
                    assert torch.cosine_similarity(row, members.mean(0), dim=0) > 1 - 1e-6
                else:
                    assert_close(row, members.mean(0))


@torch.no_grad()
def test_d_says_where_merging_begins():
    model, x = tiny(depth=5), images()
    by_d = {}
    for d in (None, 0, 2, 3, 5, 9):
        with attach(model, "tofu", "r=9", d=d):
            by_d[d] = model(x)
    assert torch.equal(by_d[None], by_d[2])  # half of 5, rounded down
    assert torch.equal(by_d[5], by_d[9])
    for d in (0, 3, 5):
        assert not torch.equal(by_d[d], by_d[2])


def test_sizes_count_but_weigh_nothing_unless_asked():
    plain, weighted = make_reducer("tofu"), make_reducer("tofu", size_weighted=True)
    assert not plain.proportional_attention
    assert not plain.weighted_pooling
    assert weighted.proportional_attention
    assert weighted.weighted_pooling
    for options in ({}, {"size_weighted": True, "merge": "average"}, {"size_weighted": True}):
        _, handle = changes(tiny(), "tofu", "r=9", **options)
        assert (handle.tokens.sizes.sum(1) == 65).all()


# PiToMe


def rays(*degrees):
    turn = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([turn.cos(), turn.sin()], dim=-1)[None]


def test_tokens_unlike_all_others_are_protected():
    # patches 0, 1, 3, 4 lie together, 2 and 5 apart from them and from each other
    keys = rays(10, 11, 120, 12, 13, 240)
    matching = energy_matching(keys, 2, margin=0.5, protect=True, num_prefix=1)
    assert set(matching.kept[0, 1:3].tolist()) == {3, 6}
    assert set(matching.source[0].tolist()) | set(matching.kept[0, 3:].tolist()) == {1, 2, 4, 5}
    assert matching.kept[0, 0] == 0
    assert ((matching.target >= 3) & (matching.target < 5)).all()


def test_without_protection_the_best_pairs_merge_wherever_they_rank():
    keys = rays(52, 10, 13, 50, 11)
    matching = energy_matching(keys, 1, margin=0.9, protect=False, num_prefix=0)
    cosine = keys[0] @ keys[0].T
    energy = torch.nn.functional.elu(cosine - 0.9).mean(1)
    ranked = energy.argsort(descending=True).tolist()
    source, target = matching.source[0, 0].item(), matching.kept[0, matching.target[0, 0]].item()
    best = max((cosine[a, b].item(), a, b) for a in ranked[::2] for b in ranked[1::2])
    assert (source, target) == best[1:]


@torch.no_grad()
def test_the_two_orders_differ_and_the_margin_counts():
    model, x = tiny(), images()
    outputs = []
    for options in ({}, {"order": "mae"}, {"margin": 0.2}, {"margin": 0.75, "order": "deit"}):
        with attach(model, "pitome", "keep=0.8", **options) as handle:
            outputs.append(model(x))
            assert not handle.reducer.proportional_attention
            assert (handle.tokens.sizes.sum(1) == 65).all()
    assert torch.equal(outputs[0], outputs[3])
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_keep_is_a_fraction_per_block_floored_as_floats_have_it():
    assert [planned("pitome", f"keep={keep}")[-1] for keep in (0.925, 0.9125, 0.875)] == [82, 69, 44]
    assert make_reducer("pitome").amount_for_keep(0.55, 0, 100, 100) == 44  # 100 - 100 * 0.55 is 44.99999999999999
    with pytest.raises(RequestError, match="at most 98 of 197; keep more"):
        planned("pitome", "keep=0.4")


# DiffRate


def test_a_plan_is_the_schedule_and_a_higher_number_takes_nothing_out():
    plan = {"prune_kept": [197, 190, 180, 999], "merge_kept": [197, 195, 170, 172]}
    assert planned("diffrate", None, depth=4, **plan) == [197, 190, 170, 170]
    with pytest.raises(RequestError, match="leave the rate r=3 out"):
        planned("diffrate", "r=3", depth=4, **plan)


def test_a_rate_is_half_pruning_and_half_merging():
    seen, handle = changes(tiny(), "diffrate", "r=7")
    assert not handle.reducer.trained
    for before, after in seen:
        dropped = (after.steps[-1].index_map() < 0).sum(1)
        assert before.count - after.count == 7
        assert (dropped == 3).all()


def test_a_plan_is_what_is_learned():
    assert make_reducer("diffrate", prune_kept=[9, 9], merge_kept=[9, 8]).trained
    assert not make_reducer("diffrate").trained


def test_merged_sizes_shrink_by_the_similarity_and_features_are_plain_means():
    plan = {"prune_kept": [60, 50, 40, 30], "merge_kept": [50, 40, 40, 21]}
    seen, _ = changes(tiny(), "diffrate", None, **plan)
    for before, after in seen:
        owner = after.steps[-1].index_map()
        hosts = after.steps[-1].kept
        for sample in range(2):
            for place, (row, members) in enumerate(groups(before, after, sample)):
                assert_close(row, members.mean(0))
                host = hosts[sample, place]
                size = before.sizes[sample, host].clone()
                for source in (owner[sample] == place).nonzero().flatten():
                    if source != host:
                        similarity = torch.cosine_similarity(before.x[sample, source], before.x[sample, host], dim=0)
                        size += before.sizes[sample, source] * similarity
                assert_close(after.sizes[sample, place], size)


def test_pruning_alone_and_merging_alone_both_sort_by_class_attention():
    for plan in ({"prune_kept": [40], "merge_kept": [60]}, {"prune_kept": [99], "merge_kept": [40]}):
        model = tiny(depth=1)
        attention = []
        handle = attach(model, "diffrate", None, **plan)
        hook = handle.reducer.register_forward_hook(
            lambda _, given, __, to=attention: to.append(given[2].class_attention)
        )
        with handle, torch.no_grad():
            model(images())
        hook.remove()
        kept = handle.tokens.steps[-1].kept[:, 1:]
        best = attention[0][:, 1:].argsort(dim=1, descending=True)[:, :39] + 1
        assert torch.equal(kept, best)


@torch.no_grad()
def test_a_size_that_opposite_directions_would_destroy_is_raised_and_said():
    model = tiny(depth=1)
    model.blocks[0].attn.qkv.weight.zero_()  # all attention equal, so that the first patch ranks first
    model.pos_embed[:, 1], model.pos_embed[:, 2:] = 20.0, -20.0
    plan = {"prune_kept": [65], "merge_kept": [2]}
    with pytest.warns(UserWarning, match="opposite direction"):
        seen, handle = changes(model, "diffrate", None, **plan)
    assert torch.equal(handle.tokens.size, torch.tensor([[1.0, SMALLEST_SIZE]] * 2))
    assert torch.equal(seen[0][1].steps[-1].kept, torch.tensor([[0, 1]] * 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        changes(tiny(), "diffrate", "r=5")


def test_similarity_is_the_cosine_and_the_first_of_equals_wins():
    x = torch.tensor([[[0.0, 2.0], [5.0, 0.0], [1.0, 0.0], [3.0, 0.0]]])
    cosine, to = most_similar(x[:, 3:], x[:, :3], 0)
    assert (cosine.item(), to.item()) == (1.0, 1)


@pytest.mark.parametrize(
    ("plan", "num_prefix", "said"),
    [([9, 8], 1, "2 blocks, but the model has 3"), ([9, 2, 3], 2, "keeps 2 tokens in block 1, of which 2 are prefix")],
)
def test_a_plan_that_does_not_fit_the_model_says_where(plan, num_prefix, said):
    with pytest.raises(RequestError, match=said) as caught:
        planned("diffrate", None, depth=3, tokens=65, num_prefix=num_prefix, prune_kept=plan, merge_kept=plan)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prune_kept": [5]}, "give both"),
        ({"prune_kept": [5, 4], "merge_kept": [5]}, "2 and 1 blocks"),
        ({"prune_kept": [5, 4.0], "merge_kept": [5, 4]}, "whole numbers"),
        ({"prune_kept": [5, 0], "merge_kept": [5, 4]}, "whole numbers"),
        ({"prune_kept": "197", "merge_kept": "197"}, "whole numbers"),
        ({"prune_kept": [], "merge_kept": []}, "whole numbers"),
    ],
)
def test_a_plan_that_is_none_is_refused_in_one_line(options, said):
    with pytest.raises(RequestError, match=said) as caught:
        make_reducer("diffrate", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("tofu", {"d": -1}, "first block that merges"),
        ("tofu", {"d": 1.5}, "first block that merges"),
        ("tofu", {"d": True}, "first block that merges"),
        ("tofu", {"merge": "slerp"}, "'mlerp' or 'average'"),
        ("pitome", {"order": "clip"}, "'deit' or 'mae'"),
    ],
)
def test_other_options_are_refused_in_one_line(name, options, said):
    with pytest.raises(RequestError, match=said) as caught:
        make_reducer(name, **options)
    assert "\n" not in str(caught.value)
