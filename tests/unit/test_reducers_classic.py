"""Sampling, clustering, soft mixtures, floors and ToMe's other matchings, on examples that were worked out by hand."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from suite import RequestError, attach
from suite.draws import random_order
from suite.matching import kth_bipartite_matching, nearest_matching, pairwise_distances
from suite.measure.flops import count_flops
from suite.reducer_weights import load_reducer_weights, save_reducer_weights
from suite.reducers import make_reducer
from suite.reducers.ats import padded, sample
from suite.reducers.dpcknn import density_peaks
from suite.reducers.kmedoids import better_medoids, far_apart, nearest
from suite.reducers.sinkhorn import transport

SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}
SOFT = ["patchmerger", "sinkhorn", "sit"]
CLUSTERINGS = ["dpcknn", "kmedoids"]


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    model = VisionTransformer(**{**SHAPE, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(batch=3, side=32, seed=1):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


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
            torch.testing.assert_close(model(image[None])[0], logits, atol=2e-5, rtol=1e-4)


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
                torch.testing.assert_close(token, wanted, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_medoids_start_where_the_block_before_attended_to():
    class Watch(type(make_reducer("kmedoids"))):
        name, seen = "watch", ()

        def before_block(self, tokens, signals, amount):
            out = super().before_block(tokens, signals, amount)
            self.seen += ((signals.received_before[:, 1:], out.steps[-1].kept[:, 1:]),)
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


# Soft mixtures


def test_a_transport_gives_every_centre_a_mass_of_one_and_takes_alike_from_every_patch():
    likeness = torch.randn(2, 5, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    plan = transport(likeness, eps=0.5, iterations=200)
    torch.testing.assert_close(plan.sum(2), torch.ones(2, 5, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(1), torch.full((2, 20), 0.25, dtype=torch.float64))
    torch.testing.assert_close(transport(likeness, 0.5, 1).sum(2), torch.ones(2, 5, dtype=torch.float64))


@pytest.mark.parametrize("name", SOFT)
@torch.no_grad()
def test_soft_mixtures_leave_the_planned_number_of_tokens_and_assign_every_patch(name):
    model = make_model()
    with attach(model, name, "keep=0.7") as handle:
        model(images())
        assert handle.token_counts == handle.planned_counts == [65, 45, 32, 22]
    assert (handle.tokens.owner >= 0).all()
    assert (handle.tokens.sizes.sum(1) == 65).all()
    assert handle.tokens.expand().shape == (3, 65, 32)


@pytest.mark.parametrize("name", SOFT)
@torch.no_grad()
def test_a_larger_image_than_the_method_was_built_for_is_refused_with_the_numbers(name):
    model = make_model(dynamic_img_size=True)
    with attach(model, name, "r=1"), pytest.raises(ValueError, match=r"64 .* but 120 are needed"):
        model(images(1, side=44))


@pytest.mark.parametrize("name", SOFT)
def test_only_the_rows_of_the_tokens_that_are_made_learn(name):
    model = make_model()
    with attach(model, name, "keep=0.5@1") as handle:
        model(images()).square().sum().backward()
    rows = {"patchmerger": "stages.0.queries", "sinkhorn": "centres.0", "sit": "stages.0.weight.3.weight"}[name]
    gradient = dict(handle.reducer.named_parameters())[rows].grad
    assert gradient.shape[0] == 64
    assert (gradient[:32].abs().sum(1) > 0).all()
    assert (gradient[32:] == 0).all()
    assert all(p.grad.isfinite().all() for p in handle.reducer.parameters())


@torch.no_grad()
def test_lengths_of_centres_and_of_patches_do_not_count_in_a_transport():
    model = make_model()
    with attach(model, "sinkhorn", "keep=0.5@0") as handle:
        logits = model(images())
        handle.reducer.centres[0].mul_(torch.rand(64, 1) + 0.5)
        torch.testing.assert_close(model(images()), logits, atol=1e-5, rtol=1e-4)
        assert handle.trace[0].attended == 33


def test_no_gradient_flows_through_the_length_of_a_centre():
    """A gradient that did would be at right angles to its centre."""
    model = make_model()
    with attach(model, "sinkhorn", "keep=0.5@0") as handle:
        model(images()).square().sum().backward()
    centres = handle.reducer.centres[0]
    along = (centres * centres.grad)[:32].sum(1) / (centres.norm(dim=1) * centres.grad.norm(dim=1))[:32]
    assert along.abs().mean() > 0.01


@pytest.mark.parametrize("name", SOFT)
@torch.no_grad()
def test_soft_mixtures_are_untrained_until_weights_are_loaded_and_read_back_the_same(name, tmp_path):
    model = make_model()
    with attach(model, name, "keep=0.5") as handle:
        assert not handle.reducer.trained
        generator = torch.Generator().manual_seed(9)
        for parameter in handle.reducer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        logits = model(images())
        save_reducer_weights(handle.reducer, tmp_path / "weights.safetensors")
    with attach(model, name, "keep=0.5", weights=tmp_path / "weights.safetensors") as again:
        assert again.reducer.trained
        assert torch.equal(model(images()), logits)
    with pytest.raises(RequestError, match="do not fit"):
        attach(model, name, "keep=0.5@1", weights=tmp_path / "weights.safetensors")
    with pytest.raises(RequestError, match="learns nothing"):
        load_reducer_weights(make_reducer("dpcknn"), tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", SOFT)
@torch.no_grad()
def test_untrained_mixtures_repeat_and_mixtures_lie_between_their_patches(name):
    model = make_model()
    outputs = []
    for _ in range(2):
        torch.manual_seed(len(outputs))
        with attach(model, name, "keep=0.5"):
            outputs.append(model(images()))
    assert torch.equal(*outputs)
    if name == "sit":
        changes = []
        handle = attach(model, name, "keep=0.5@2")
        handle.reducer.register_forward_hook(lambda _, given, out: changes.append((given[1].x, out.x)))
        with handle:
            model(images())
        (before, after), *_ = changes
        assert (after[:, 1:] <= before[:, 1:].amax(1, keepdim=True) + 1e-6).all()
        assert (after[:, 1:] >= before[:, 1:].amin(1, keepdim=True) - 1e-6).all()
        assert torch.equal(after[:, 0], before[:, 0])


def test_merging_by_queries_counts_two_products():
    model = make_model()
    with attach(model, "patchmerger", "keep=0.5@2"):
        report = count_flops(model, images=images(1))
    assert report.reducer == 2 * 64 * 32 * 32
    assert not report.disputed


# The middle of the image


@pytest.mark.parametrize(
    ("metric", "kept", "wanted"),
    [
        ("l1", 5, [7, 11, 12, 13, 17]),
        ("linf", 9, [6, 7, 8, 11, 12, 13, 16, 17, 18]),
        ("l2", 9, [6, 7, 8, 11, 12, 13, 16, 17, 18]),
        ("l2", 13, [2, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 22]),
        ("l1", 2, [7, 12]),
    ],
)
@torch.no_grad()
def test_the_middle_of_a_five_by_five_grid_is_kept_in_raster_order(metric, kept, wanted):
    model = make_model(img_size=20)
    for rate in (f"r={25 - kept}@3", f"r=[{25 - kept - 8}, 5, 0, 3]"):
        with attach(model, "heuristic", rate, metric=metric) as handle:
            model(images(2, side=20))
        owner = handle.tokens.owner
        assert (owner[:, 1:] >= 0).nonzero()[:, 1].tolist() == wanted * 2
        assert owner[0][owner[0] >= 0].tolist() == list(range(kept + 1))


@torch.no_grad()
def test_the_middle_moves_with_the_image_size():
    model = make_model(dynamic_img_size=True)
    with attach(model, "heuristic", "keep=0.11@0") as handle:
        model(images(1, side=24))
    assert (handle.tokens.owner[0, 1:] >= 0).nonzero().flatten().tolist() == [14, 15, 20]


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(RequestError, match="l1, l2, linf"):
        make_reducer("heuristic", metric="l3")


# ToMe's other matchings


def angles(*degrees):
    """(1, N, 2) unit vectors, so that similarity is the cosine of the angle between two of them."""
    turn = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([turn.cos(), turn.sin()], dim=-1)[None]


def lists(matching):
    return [part[0].tolist() for part in (matching.kept, matching.source, matching.target)]


def test_tokens_merge_into_the_nearest_third_one():
    # class token 0; targets stand at 2 (50 deg) and 5 (120 deg); sources 1 (40), 3 (118), 4 (80), 6 (60), 7 (170)
    metric = angles(0, 40, 50, 118, 80, 120, 61, 170)
    kept, source, target = lists(kth_bipartite_matching(metric, 2, protected=1, k=3))
    assert source == [3, 1]  # 2 and 10 degrees away, then 11
    assert kept == [0, 4, 6, 7, 2, 5]
    assert target == [5, 4]


def test_every_second_token_is_plain_token_merging():
    for options in ({}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 4}, {"img_size": 28}):
        model = make_model(**options)
        batch = images(side=options.get("img_size", 32))
        for rate in ("r=6", "r=[20, 0, 3, 11]", "r=24"):
            with torch.no_grad():
                with attach(model, "tome", rate) as plain:
                    logits = model(batch)
                with attach(model, "tome_kth", rate, k=2) as every:
                    torch.testing.assert_close(model(batch), logits, atol=1e-6, rtol=1e-5)
            assert torch.equal(every.tokens.owner, plain.tokens.owner)
            assert every.token_counts == plain.token_counts


@torch.no_grad()
def test_the_largest_rate_merges_all_but_every_kth_token():
    model = make_model()
    with attach(model, "tome_kth", "r=0.75@0", k=4) as handle:
        model(images())
    assert handle.token_counts == [17, 17, 17, 17]
    places = handle.tokens.owner[0, 3::4]  # positions 3, 7, ..., 63 are the targets
    assert sorted(places.tolist()) == list(range(1, 17))
    with pytest.raises(RequestError, match="at most 48 of 65"):
        attach(model, "tome_kth", "r=49", k=4)


@pytest.mark.parametrize(("count", "prefix", "k", "most"), [(65, 1, 4, 48), (3, 1, 4, 0), (9, 1, 3, 5), (8, 5, 2, 1)])
def test_no_more_is_merged_than_there_are_tokens_off_the_kth_places(count, prefix, k, most):
    assert make_reducer("tome_kth", k=k).capacity(count, prefix) == most
    off = sum((place + 1) % k != 0 for place in range(prefix, count))
    assert most <= off


def test_every_first_token_is_refused():
    with pytest.raises(RequestError, match="at least 2"):
        make_reducer("tome_kth", k=1)


def test_given_sources_merge_into_the_nearest_target_and_the_others_keep_their_order():
    matching = nearest_matching(angles(0, 10, 50, 95, 100), 2, 1, torch.tensor([[4, 1]]), torch.tensor([[2, 3]]))
    assert lists(matching) == [[0, 2, 3], [4, 1], [2, 1]]


@torch.no_grad()
def test_random_sources_differ_by_seed_sample_and_block_but_not_by_run_or_neighbour():
    patches = torch.randn(3, 64, 32, generator=torch.Generator().manual_seed(4))
    order = random_order(patches, 0, 0)
    assert all(sorted(row.tolist()) == list(range(64)) for row in order)
    for other in (random_order(patches, 1, 0), random_order(patches, 0, 1), order.roll(1, 0)):
        assert not (other == order).all(1).any()
    assert torch.equal(random_order(patches[1:2], 0, 0), order[1:2])
    model = make_model()
    with attach(model, "tome_random", "r=6") as handle:
        logits = model(images())
        owner = handle.tokens.owner
        torch.testing.assert_close(model(images()[1:2]), logits[1:2], atol=1e-5, rtol=1e-4)
        assert torch.equal(handle.tokens.owner, owner[1:2])
    with attach(model, "tome_random", "r=6", seed=1) as handle:
        assert not torch.equal(model(images()), logits)


def test_random_sources_cost_the_product_with_the_others_alone():
    model = make_model()
    with attach(model, "tome_random", "r=[6]"):
        report = count_flops(model, images=images(1))
    assert report.reducer == 6 * 58 * 16
    with attach(model, "tome_kth", "r=[6]", k=4):
        assert count_flops(model, images=images(1)).reducer == 48 * 16 * 16
