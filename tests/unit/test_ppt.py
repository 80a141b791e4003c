"""Pruning and pooling: whichever an image's scores call for, in one batch."""

import pytest
import torch
from tiny_vit import images, make_model

from suite import RequestError, attach
from suite.measure.flops import count_flops
from suite.reducers import make_reducer
from suite.reducers.ppt import shares_of_scores
from tests.tolerances import TINY32


def run(model, batch, rate="r=12@1,2", **options):
    with torch.no_grad(), attach(model, "ppt", rate, **options) as handle:
        return model(batch), handle.tokens, handle.token_counts


def spreads(model, batch):
    """(B,) variance of the shares in block 1 of the whole model."""
    seen = []
    with torch.no_grad(), attach(model, "ppt", "r=2@1") as handle:
        handle.reducer.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
        model(batch)
    signals = seen[0]
    return shares_of_scores(signals.class_attention[:, 1:], signals.value_norm[:, 1:]).var(dim=1)


def test_shares_sum_to_one_and_their_variance_is_that_of_a_sample():
    share = shares_of_scores(torch.tensor([[0.4, 0.15, 0.2, 0.05]]), torch.tensor([[1.0, 2.0, 1.0, 2.0]]))
    torch.testing.assert_close(share, torch.tensor([[0.4, 0.3, 0.2, 0.1]]))
    assert share.var(dim=1).item() == pytest.approx(0.05 / 3)  # 0.0125 of a population: 0.015 lies between


def test_an_infinite_threshold_is_token_merging_in_those_blocks():
    model, batch = make_model(), images()
    logits, tokens, counts = run(model, batch, threshold=1e9)
    with torch.no_grad(), attach(model, "tome", "r=12@1,2") as handle:
        assert torch.equal(model(batch), logits)
    assert torch.equal(handle.tokens.owner, tokens.owner)
    assert torch.equal(handle.tokens.sizes, tokens.sizes)
    assert handle.token_counts == counts == [65, 53, 41, 41]


@torch.no_grad()
def test_a_threshold_of_zero_drops_the_lowest_scores_and_orders_the_rest_by_them():
    model, seen = make_model(), []
    with attach(model, "ppt", "r=12@1", threshold=0) as handle:
        handle.reducer.register_forward_hook(lambda _, given, out: seen.append((given[1], given[2], out)))
        model(images())
    (before, signals, after) = seen[0]
    score = signals.class_attention * signals.heads[2].transpose(1, 2).flatten(2).norm(dim=2)
    order = score[:, 1:].argsort(dim=1, descending=True)[:, :52] + 1
    for row in range(3):
        assert torch.equal(after.x[row, 1:], before.x[row, order[row]])
    assert ((after.owner >= 0).sum(1) == 53).all()
    assert (after.sizes == 1).all()


def test_a_batch_of_both_kinds_is_each_image_by_itself():
    model, batch = make_model(), images(6)
    spread = spreads(model, batch)
    threshold = spread.median().item()
    logits, tokens, counts = run(model, batch, threshold=threshold)
    assert counts == [65, 53, 41, 41]
    pooled = run(model, batch, "r=12@1", threshold=threshold)[1].sizes.sum(1) == 65
    assert torch.equal(pooled, spread < threshold)  # at the threshold itself an image is pruned
    assert 0 < pooled.sum() < 6
    for row in range(6):
        alone, lone, _ = run(model, batch[row : row + 1], threshold=threshold)
        torch.testing.assert_close(alone[0], logits[row], **TINY32)
        assert torch.equal(lone.owner[0], tokens.owner[row])
        assert torch.equal(lone.sizes[0], tokens.sizes[row])
        dropped = (lone.owner < 0).sum().item()
        assert lone.sizes.sum().item() == 65 - dropped


def test_scores_that_are_all_alike_are_merged():
    model = make_model()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
            block.attn.qkv.bias[64:] = 1
    _, tokens, _ = run(model, images(), "r=12@1")  # later blocks tell tokens apart by their sizes
    assert (tokens.owner >= 0).all()


def test_the_threshold_follows_the_number_of_patches_unless_it_is_given():
    assert make_reducer("ppt").threshold_for(196) == 7e-5
    assert make_reducer("ppt").threshold_for(49) == pytest.approx(16 * 7e-5)
    assert make_reducer("ppt", threshold=6e-5).threshold_for(49) == 6e-5
    for wrong in (-1.0, "high", True):
        with pytest.raises(RequestError, match="threshold="):
            make_reducer("ppt", threshold=wrong)


def test_one_rate_acts_in_the_authors_blocks_and_half_of_an_odd_number_is_kept_and_one():
    model = make_model(img_size=28)  # 49 patches
    assert run(model, images(side=28), "keep=0.5")[2] == [50, 26, 14, 8]
    assert run(make_model(), images(), "r=5")[2] == [65, 60, 55, 50]
    with pytest.raises(RequestError, match="at most 24 of 50"):
        run(model, images(side=28), "keep=0.3")


def test_matching_costs_its_product_whatever_an_image_does():
    model = make_model()
    for threshold in (0, 1e9):
        with attach(model, "ppt", "r=12@1", threshold=threshold):
            report = count_flops(model, images=images(1))
        assert report.reducer == 33 * 32 * 16 + 65 * 32  # and the class token's row of attention
        assert not report.disputed


@torch.no_grad()
def test_forgetting_sizes_averages_plainly():
    model, changes = make_model(), []
    with attach(model, "ppt", "r=20@1,2", threshold=1e9, proportional_attention=False) as handle:
        handle.reducer.register_forward_hook(lambda _, given, out: changes.append((given[1], out)))
        model(images())
    (_, _), (before, after) = changes
    assert after.size is None
    owner = after.steps[-1].index_map()
    for place in range(after.count):
        torch.testing.assert_close(after.x[0, place], before.x[0, owner[0] == place].mean(0), **TINY32)
