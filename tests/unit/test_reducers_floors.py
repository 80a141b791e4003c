"""The middle of the image, and ToMe's other matchings, on examples that were worked out by hand."""

import pytest
import torch
from tiny_vit import images, make_model

from suite import RequestError, attach
from suite.measure.flops import count_flops
from suite.reducers import make_reducer
from suite.tokens.matching import kth_bipartite_matching, nearest_matching
from suite.tokens.sample_rng import draw, fingerprint
from tests.tolerances import TINY32

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


@torch.no_grad()
def test_the_middle_of_an_image_that_is_not_square_is_found_by_the_models_grid():
    model = make_model(img_size=(12, 28))  # 3 rows of 7
    with attach(model, "heuristic", "r=16@0") as handle:
        model(torch.randn(1, 3, 12, 28))
    assert (handle.tokens.owner[0, 1:] >= 0).nonzero().flatten().tolist() == [3, 9, 10, 11, 17]


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
                    torch.testing.assert_close(model(batch), logits, **TINY32)
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

    def random_order(patches, seed, block):
        return draw(fingerprint(patches), patches.shape[1], seed, block).argsort(dim=1)

    order = random_order(patches, 0, 0)
    assert all(sorted(row.tolist()) == list(range(64)) for row in order)
    for other in (random_order(patches, 1, 0), random_order(patches, 0, 1), order.roll(1, 0)):
        assert not (other == order).all(1).any()
    assert torch.equal(random_order(patches[1:2], 0, 0), order[1:2])
    model = make_model()
    with attach(model, "tome_random", "r=6") as handle:
        logits = model(images())
        owner = handle.tokens.owner
        torch.testing.assert_close(model(images()[1:2]), logits[1:2], **TINY32)
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
