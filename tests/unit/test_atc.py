"""Agglomerative clustering on angles that were worked out by hand, and beside the literal algorithm."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cut_tree, linkage
from tiny_vit import images, make_model

from suite import RequestError, attach
from suite.reducers import make_reducer
from suite.reducers.atc import FAR, LINKAGES, agglomerate, clusters_of, distances
from tests.tolerances import BLOCK32


def angles(*degrees):
    """(1, T, 2) keys of lengths that differ, for only directions count."""
    turn = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([turn.cos(), turn.sin()], dim=-1)[None] * torch.arange(1, len(degrees) + 1)[:, None]


def partition(keys, count, linkage="average"):
    """[(B,) sets of frozensets] of patches."""
    patches = keys.shape[1]
    into, gone = agglomerate(distances(keys), patches - count, linkage)
    kept, cluster = clusters_of(into, gone, patches)
    assert kept.shape == (len(keys), count)
    found = []
    for row in range(len(keys)):
        members = {place: {patch} for place, patch in enumerate(kept[row].tolist())}
        for patch, place in zip(gone[row].tolist(), cluster[row].tolist(), strict=True):
            members[place].add(patch)
        assert all(min(members[place]) == patch for place, patch in enumerate(kept[row].tolist()))
        assert kept[row].tolist() == sorted(kept[row].tolist())
        found.append({frozenset(group) for group in members.values()})
    return found


@pytest.mark.parametrize(
    ("last", "linkage", "wanted"),
    [
        (90, "single", [{0, 1, 2}, {3}]),
        (90, "complete", [{0, 1}, {2, 3}]),
        (90, "average", [{0, 1}, {2, 3}]),
        (95, "average", [{0, 1, 2}, {3}]),
        (95, "complete", [{0, 1}, {2, 3}]),
    ],
)
def test_two_clusters_of_four_angles(last, linkage, wanted):
    assert partition(angles(0, 20, 50, last), 2, linkage) == [set(map(frozenset, wanted))]


def test_distances_are_one_less_the_cosine_symmetric_and_one_from_a_key_of_no_length():
    apart = distances(torch.cat([angles(0, 60), torch.zeros(1, 1, 2, dtype=torch.float64)], dim=1))
    assert torch.equal(apart, apart.transpose(1, 2))
    assert apart[0, 0].tolist() == pytest.approx([FAR, 0.5, 1])
    assert distances(angles(0, 60).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("linkage_", LINKAGES)
def test_partitions_are_those_of_the_whole_tree_cut(linkage_):
    keys = torch.randn(6, 40, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    apart = distances(keys).numpy()
    for count in (1, 2, 7, 20, 39):
        for row, found in enumerate(partition(keys, count, linkage_)):
            pairs = apart[row][np.triu_indices(40, 1)]
            labels = cut_tree(linkage(pairs, method=linkage_), n_clusters=count)[:, 0]
            assert found == {frozenset(np.flatnonzero(labels == label).tolist()) for label in range(count)}


@pytest.mark.parametrize("linkage_", LINKAGES)
def test_fewer_clusters_are_unions_of_more_and_far_apart_ones_are_any_linkages(linkage_):
    keys = torch.randn(1, 30, 8, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    for count in range(1, 29):
        (few,), (more,) = partition(keys, count, linkage_), partition(keys, count + 1, linkage_)
        assert all(any(group <= whole for whole in few) for group in more)
    assert partition(angles(0, 1, 2, 50, 51, 120, 121, 122), 3, linkage_) == [
        {frozenset({0, 1, 2}), frozenset({3, 4}), frozenset({5, 6, 7})}
    ]


def test_of_equal_keys_the_first_pairs_merge_and_the_number_is_kept():
    assert partition(torch.ones(2, 5, 3), 3, "complete") == [{frozenset({0, 1, 2}), frozenset({3}), frozenset({4})}] * 2


@torch.no_grad()
def test_a_cluster_becomes_the_average_of_its_tokens_by_size_or_forgets_sizes():
    for options, weighted in (({}, True), ({"proportional_attention": False}, False)):
        model, changes = make_model(), []
        handle = attach(model, "atc", "keep=0.6@0,2", **options)
        handle.reducer.register_forward_hook(lambda _, given, out, seen=changes: seen.append((given[1], out)))
        with handle:
            model(images())
        (_, _), (before, after) = changes
        owner = after.steps[-1].index_map()
        for row in range(3):
            for place in range(1, after.count):
                members = owner[row] == place
                weight = before.sizes[row, members] if weighted else torch.ones(int(members.sum()))
                wanted = (before.x[row, members] * weight[:, None]).sum(0) / weight.sum()
                torch.testing.assert_close(after.x[row, place], wanted, **BLOCK32)
        assert (after.size is None) != weighted
        assert (after.sizes.sum(1) == 65).all()


@torch.no_grad()
def test_one_token_may_be_left_and_stands_for_all_patches():
    model = make_model()
    with attach(model, "atc", "r=63@1") as handle:
        model(images())
    assert handle.token_counts == [65, 2, 2, 2]
    assert handle.tokens.sizes.tolist() == [[1, 64]] * 3


def test_an_unknown_linkage_is_refused_with_the_known_ones():
    with pytest.raises(RequestError, match="average, complete, single"):
        make_reducer("atc", linkage="ward")
