"""Adaptive sampling and clusterings on examples that were worked out by hand, and what both owe on a model."""

import pytest
import torch
from tiny_vit import images, make_model
from torch.utils.flop_counter import FlopCounterMode

from suite import attach
from suite.measure.dispatch import count_macs_fast, quiet_forward
from suite.measure.flops import count_flops
from suite.reducers import make_reducer
from suite.reducers.ats import sample
from suite.reducers.dpcknn import density_peaks
from suite.reducers.kmedoids import better_medoids, far_apart, nearest
from suite.tokens.matching import pairwise_distances
from suite.tokens.padding import padded
from tests.tolerances import BLOCK32, TINY32

SOFT = ["patchmerger", "sinkhorn", "sit"]
CLUSTERINGS = ["dpcknn", "kmedoids"]


def line(*places):
    """(1, T, T) distances of tokens on a line."""
    x = torch.tensor(places, dtype=torch.float64)
    return (x[:, None] - x).abs()[None]


def picks(*significance, points, present=None):
    given = torch.tensor([significance])
    present = None if present is None else torch.tensor([present])
    return sample(given, points, present)[0].nonzero().flatten().tolist()


# Adaptive token sampling


def test_sampling_picks_the_patches_nearest_to_evenly_spaced_points_of_the_cumulative_sum():
    # sums .1 .2 .6 1; four points .1 .3 .5 .7 are nearest to .1, .2, .6, .6
    assert picks(1.0, 1.0, 4.0, 4.0, points=4) == [0, 1, 2]


def test_the_more_significance_is_in_one_patch_the_fewer_are_picked():
    assert picks(2.0, 3.0, 2.0, 3.0, points=3) == [0, 1, 2]  # sums .2 .5 .7 1; points 1/8 3/8 5/8
    assert picks(0.01, 0.01, 0.96, 0.01, 0.01, 0.0, points=5) == [1, 2]


def test_a_point_midway_between_two_entries_goes_to_the_first():
    # sums 1/4 3/4 1; points 1/6 1/2
    assert picks(1.0, 2.0, 1.0, points=2) == [0]


def test_patches_without_significance_are_never_picked_for_the_one_before_them():
    assert picks(1.0, 0.0, 0.0, 1.0, 0.0, points=3) == [0]  # sums .5 .5 .5 1 1; points 1/8 3/8 5/8
    assert picks(0.0, 0.0, 0.0, points=2) == [0]


def test_padding_is_never_picked():
    assert picks(1.0, 1.0, 0.0, 0.0, points=60, present=[True, True, False, False]) == [0, 1]


def test_samples_are_padded_to_the_longest_and_to_nothing_when_alike():
    index, valid = padded(torch.tensor([[True, False, True], [False, True, False]]))
    assert index[0].tolist() == [0, 2]
    assert index[1, 0] == 1
    assert valid.tolist() == [[True, True], [True, False]]
    index, valid = padded(torch.tensor([[True, False, True], [False, True, True]]))
    assert (index.tolist(), valid) == ([[0, 2], [1, 2]], None)


@torch.no_grad()
def test_sampling_keeps_no_more_than_planned_and_a_lone_sample_has_no_padding():
    model = make_model()
    with attach(model, "ats", "keep=0.7") as handle:
        model(images(8))
        most = [64 + 1, *(int(64 * 0.7**stage) + 1 for stage in (1, 2, 3))]
        assert all(count <= limit for count, limit in zip(handle.token_counts, most, strict=True))
        counts, owners = handle.tokens.counts, handle.tokens.owner
        assert len(counts.unique()) > 1
        assert handle.tokens.valid.sum(1).tolist() == counts.tolist()
        for image, count, owner in zip(images(8), counts, owners, strict=True):
            model(image[None])
            assert handle.tokens.valid is None
            assert handle.tokens.count == count
            assert torch.equal(handle.tokens.owner[0], owner)


@pytest.mark.parametrize("pool", ["token", "avg", "max", "avgmax"])
@torch.no_grad()
def test_logits_of_a_padded_sample_are_those_of_the_sample_alone(pool):
    model = make_model(global_pool=pool)
    with attach(model, "ats", "r=5") as handle:
        together = model(images(6))
        assert handle.tokens.valid is not None
        for image, logits in zip(images(6), together, strict=True):
            torch.testing.assert_close(model(image[None])[0], logits, **TINY32)


def test_sampling_lets_gradients_through_to_queries_keys_and_values():
    model = make_model()
    with attach(model, "ats", "r=5"):
        model(images()).square().sum().backward()
    for block in model.blocks:
        assert (block.attn.qkv.weight.grad.unflatten(0, (3, -1)).abs().sum((1, 2)) > 0).all()


@torch.no_grad()
def test_an_image_of_few_significant_patches_costs_less():
    model = make_model()
    with attach(model, "ats", "r=5") as handle:
        report = count_flops(model, images=images(3))
        assert len(set(report.per_image)) > 1
        assert not report.disputed
        assert handle.planned_counts is None


# Clusterings


def test_distances_are_symmetric_and_zero_on_the_diagonal_to_the_last_bit():
    x = 1000 + torch.randn(2, 80, 24, generator=torch.Generator().manual_seed(0))
    apart = pairwise_distances(x)
    assert torch.equal(apart, apart.transpose(1, 2))
    assert (apart.diagonal(dim1=1, dim2=2) == 0).all()
    exact = (x.double()[:, :, None] - x.double()[:, None]).norm(dim=3)
    torch.testing.assert_close(apart.double(), exact, atol=1e-3, rtol=1e-4)
    assert pairwise_distances(x.bfloat16()).dtype == torch.float32


def test_density_peaks_are_the_middles_of_two_crowds():
    # the middles 1 and 11.2 of the crowds; the densest of all takes the largest distance as its own
    assert density_peaks(line(0, 1, 2, 10, 11.2, 12), 3)[0, :2].tolist() == [1, 4]


def test_of_equal_densities_the_lower_position_is_denser():
    # four equal tokens: the first is the densest, the others are at no distance from a denser one
    assert density_peaks(line(3, 3, 3, 3), 2)[0].tolist() == [0, 1, 2, 3]
    assert density_peaks(line(0, 1, 100, 101), 2)[0, :2].tolist() == [0, 2]


def test_densities_too_small_for_a_float_still_rank():
    assert density_peaks(1000 * line(0, 1, 2, 10, 11.2, 12), 3)[0, :2].tolist() == [1, 4]


def test_a_medoid_is_the_member_that_weighted_squared_distances_favour():
    apart = line(0, 1, 5, 20, 21).square()
    medoids = torch.tensor([[0, 3]])
    assert nearest(apart, medoids).tolist() == [[0, 0, 0, 1, 1]]
    equal = torch.ones(1, 5, dtype=torch.float64)
    assert better_medoids(apart, equal, medoids).tolist() == [[1, 3]]  # 26, 17, 41; a pair ties: the lower one
    heavy = torch.tensor([[1, 1, 9, 1, 2]], dtype=torch.float64)
    assert better_medoids(apart, heavy, medoids).tolist() == [[2, 4]]


def test_first_medoids_without_weights_lie_far_apart():
    assert far_apart(line(0, 1, 2, 3, 30), 3).tolist() == [[2, 4, 0]]  # sums 36, 33, 32, 33; then 30; then 0


def test_copies_of_a_medoid_are_other_tokens_and_every_cluster_holds_its_medoid():
    apart = torch.zeros(1, 4, 4)
    medoids = far_apart(apart, 3)
    assert sorted(medoids[0].tolist()) == [0, 1, 2]
    assert sorted(better_medoids(apart, torch.ones(1, 4), medoids)[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("rate", ["keep=0.5", "r=9"])
@torch.no_grad()
def test_medoids_are_tokens_as_they_were_and_cluster_means_are_plain_means(rate):
    model = make_model()
    for name in CLUSTERINGS:
        changes = []
        handle = attach(model, name, rate)
        hook = handle.reducer.register_forward_hook(lambda _, given, out, seen=changes: seen.append((given[1], out)))
        with handle:
            model(images())
        hook.remove()
        for before, after in changes:
            owner = after.steps[-1].index_map()
            for row, place in ((0, 1), (1, after.count // 2), (2, after.count - 1)):
                members, token = before.x[row, owner[row] == place], after.x[row, place]
                closest = members[(members - token).norm(dim=1).argmin()]
                wanted = members.mean(0) if name == "dpcknn" else closest
                torch.testing.assert_close(token, wanted, **BLOCK32)


@torch.no_grad()
def test_medoids_start_where_the_block_before_attended_to():
    class Watch(type(make_reducer("kmedoids"))):
        name, seen = "watch", ()

        def before_block(self, tokens, signals, amount):
            out = super().before_block(tokens, signals, amount)
            self.seen += ((signals.observed[0][:, 1:], out.steps[-1].kept[:, 1:]),)
            return out

    model, watch = make_model(), Watch(iterations=0)
    with attach(model, watch, "keep=0.5"):
        model(images())
    assert len(watch.seen) == 3
    for received, medoids in watch.seen:
        assert torch.equal(received.topk(medoids.shape[1], dim=1).indices + 1, medoids)


@pytest.mark.parametrize("name", [*CLUSTERINGS, *SOFT, "ats", "tome_kth", "tome_random", "heuristic"])
@torch.no_grad()
def test_tokens_that_are_all_alike_give_a_finite_result(name):
    model = make_model(pos_embed="none")
    rate = "r=6" if name.startswith("tome") else "keep=0.5"
    with attach(model, name, rate) as handle:
        assert model(torch.ones(2, 3, 32, 32)).isfinite().all()
        assert not handle.planned_counts or handle.token_counts == handle.planned_counts


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_clusterings_count_the_product_that_all_distances_cost(name):
    model = make_model()
    with attach(model, name, "keep=0.5@2"):
        report = count_flops(model, images=images(1))
    steps = 3 * 64 * 64 if name == "kmedoids" else 0  # one weighted sum of distances per token and iteration
    assert report.reducer == 64 * 64 * 32 + steps
    assert not report.uncounted
    assert not report.disputed


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_distances_are_all_that_torchs_own_counter_leaves_out(name):
    model = make_model()
    with attach(model, name, "keep=0.5@2"):
        with quiet_forward(model, images(1)) as image, FlopCounterMode(display=False) as counter:
            model(image)
        assert count_macs_fast(model, images(1)) - counter.get_total_flops() // 2 == 64 * 64 * 32
    left_out = {torch.ops.aten._cdist_forward, torch.ops.aten._euclidean_dist}
    assert left_out.isdisjoint(counter.get_flop_counts()["Global"])
