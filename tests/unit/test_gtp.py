"""Propagation along a graph of patches: worked out by hand, and what the maps and states are on a model."""

import pytest
import torch
from tiny_vit import images, make_model

from suite import RequestError, attach
from suite.measure.flops import count_flops
from suite.reducers import make_reducer
from suite.reducers.gtp import importance, most_similar, neighbours_in_space, sparse, weights_of
from suite.tokens.state import Tokens
from tests.tolerances import TINY32

CPU = torch.device("cpu")


def test_patches_of_a_grid_have_three_five_or_eight_neighbours():
    linked = neighbours_in_space(3, 4, CPU)
    assert linked.sum(1).tolist() == [3, 5, 5, 3, 5, 8, 8, 5, 3, 5, 5, 3]
    assert torch.equal(linked, linked.T)
    weights = weights_of(linked, torch.float64)
    assert torch.equal(weights, weights.T)
    assert weights[0, 1].item() == pytest.approx(1 / 15**0.5)


def test_similar_patches_are_linked_in_one_direction_and_more_where_they_tie():
    turn = torch.deg2rad(torch.tensor([0.0, 10, 30, 90], dtype=torch.float64))
    linked = most_similar(torch.stack([turn.cos(), turn.sin()], dim=1)[None], 1)[0]
    assert linked.nonzero().tolist() == [[0, 1], [1, 0], [2, 1], [3, 2]]
    assert most_similar(torch.ones(1, 4, 2), 1)[0].sum(1).tolist() == [3] * 4


def test_two_by_two_patches_take_a_third_of_the_last():
    made = make_reducer("gtp", graph="spatial", alpha=0.3)

    class Seen:
        attention_map = torch.eye(5)[None, None] * torch.tensor([1, 0.9, 0.8, 0.7, 0.1])

    embedded = torch.tensor([0.0, 1, 2, 4, 8])[None, :, None]
    tokens = made.begin(Tokens.start(embedded, 1), embedded, (2, 2))
    after = made.after_attention(tokens, Seen(), 1)
    assert after.x.flatten().tolist() == pytest.approx([0, 1.8, 2.8, 4.8])
    assert after.size.flatten().tolist() == pytest.approx([1, 1.1, 1.1, 1.1])
    (graph,) = after.carried
    torch.testing.assert_close(graph[0], (1 - torch.eye(3)) / 3)


def test_entries_below_the_threshold_vanish_and_those_at_it_stay():
    attention = torch.tensor([[[[0.7, 0.3], [0.6, 0.4]]]])
    assert sparse(attention, 0.5).flatten().tolist() == pytest.approx([0.7, 0, 0.6, 0.4])
    assert sparse(attention, 0.9) is attention  # the 0-th smallest of 4


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        ("DiagAttnMax", [0.5, 0.6]),
        ("DiagAttnMean", [0.45, 0.4]),
        ("IMGAttnMax", [1.1, 1.2]),
        ("IMGAttnMean", [0.9, 1.1]),
        ("CLSAttnMax", [0.3, 0.5]),
        ("CLSAttnMean", [0.2, 0.4]),
        ("MixedAttnMax", [0.55, 0.72]),
        ("MixedAttnMean", [0.405, 0.44]),
        ("SumAttnMax", [1.6, 1.8]),
    ],
)
def test_importance_of_two_patches_in_two_heads(selection, wanted):
    attention = torch.tensor(
        [
            [[0.6, 0.1, 0.3], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]],
            [[0.2, 0.3, 0.5], [0.2, 0.5, 0.3], [0.5, 0.3, 0.2]],
        ],
        dtype=torch.float64,
    )[None]
    found = importance(attention, 1, selection)[0].tolist()
    assert found == pytest.approx(wanted)


def run(model, rate="r=6", batch=None, **options):
    changes = []
    handle = attach(model, "gtp", rate, **options)
    handle.reducer.register_forward_hook(lambda _, given, out: changes.append((given, out)))
    with torch.no_grad(), handle:
        logits = model(images() if batch is None else batch)
    return logits, handle, changes


def test_without_propagation_the_same_patches_stay_as_they_were():
    model = make_model()
    plain, _, before = run(model, "r=[6]", alpha=0.0)
    mixed, _, after = run(model, "r=[6]", alpha=0.2)
    more, _, _ = run(model, "r=[6]", alpha=0.4)
    (_, tokens, _, _), left = before[1]
    assert torch.equal(left.x, tokens.x.take_along_dim(left.steps[-1].kept[..., None], 1))
    assert torch.equal(left.owner, after[1][1].owner)
    torch.testing.assert_close(after[1][1].x - left.x, (run(model, "r=[6]", alpha=0.4)[2][1][1].x - left.x) / 2)
    assert not torch.equal(plain, mixed)
    assert not torch.equal(mixed, more)


def test_scales_grow_and_a_prefix_token_s_stays_one():
    for options in ({}, {"reg_tokens": 2}):
        model = make_model(**options)
        _, handle, _ = run(model)
        prefix = model.num_prefix_tokens
        assert (handle.tokens.sizes[:, :prefix] == 1).all()
        assert (handle.tokens.sizes >= 1).all()
        assert (handle.tokens.sizes > 1).any()
        assert handle.token_counts == [prefix + 58, prefix + 52, prefix + 46, prefix + 40]


def test_the_graph_is_of_the_embedded_patches_wherever_the_first_block_acts():
    model = make_model()
    for rate in ("r=6@0", "r=6@2"):
        _, _, ((given, begun), *_) = run(model, rate)
        assert given[0] == "begin"
        linked = most_similar(given[2][:, 1:], 8) | neighbours_in_space(8, 8, CPU)
        torch.testing.assert_close(begun.carried[0], weights_of(linked, torch.float32))


def test_a_sparse_map_is_what_attention_uses_in_blocks_that_drop_patches():
    model, maps = make_model(), []
    handle = attach(model, "gtp", "r=6@1,2", theta=0.7)
    handle.reducer.register_forward_pre_hook(
        lambda _, given: maps.append(given[2].attention_map) if given[0] == "after_attention" else None
    )
    with torch.no_grad(), handle:
        model(images())
    for attention in maps:
        count = attention.shape[-1]
        assert ((attention == 0).sum((2, 3)) == int(count**2 * (1 - 0.7)) - 1).all()
        assert (attention.sum(3) < 1 + 1e-5).all()
    with torch.no_grad(), attach(model, "gtp", "r=0", theta=0.7):
        zero = model(images())
    assert torch.equal(zero, model(images()))


def test_a_sample_s_graph_is_its_own():
    model, batch = make_model(), images()
    logits, handle, _ = run(model)
    alone, lone, _ = run(model, batch=batch[1:2])
    torch.testing.assert_close(alone[0], logits[1], **TINY32)
    assert torch.equal(lone.tokens.owner[0], handle.tokens.owner[1])


def test_the_graph_and_every_propagation_are_counted():
    model = make_model()
    with attach(model, "gtp", "r=[6]"):
        report = count_flops(model, images=images(1))
    assert report.reducer == 64 * 64 * 32 + 58 * 6 * 32 + 58 * 6
    assert not report.disputed


@pytest.mark.parametrize("options", [{"graph": "tree"}, {"selection": "Random"}, {"theta": 0.0}, {"neighbours": 0}])
def test_an_option_that_means_nothing_is_refused(options):
    with pytest.raises(RequestError):
        make_reducer("gtp", **options)


def test_only_a_selection_by_the_class_token_needs_one():
    model = make_model(class_token=False, global_pool="avg")
    run(model)
    with pytest.raises(RequestError, match="no class token"):
        attach(model, "gtp", "r=6", selection="CLSAttnMax")
