"""What DiffRate does in training: how many tokens a block prunes and merges is learned from the task and the cost."""

import pytest
import torch
from reducer_steps import images, steered, tiny
from torch.testing import assert_close

from suite import RequestError, attach
from suite.backbones.block import BlockTrace
from suite.measure.formula import base_macs
from suite.reducers import make_reducer
from suite.reducers.learned_counts import LearnedCounts, merge_softly


def relaxed(model, plan, x, **options):
    with attach(model, "diffrate", None, **plan, **options) as handle, torch.no_grad():
        handle.reducer.train()
        return model(x), handle


@pytest.mark.parametrize("options", [{}, {"global_pool": "avg"}, {"reg_tokens": 2, "qk_norm": True}], ids=str)
def test_pruning_by_masks_is_what_evaluation_does_with_the_plan(options):
    model, x = tiny(**options).double(), images().double()
    plan = {"prune_kept": [60, 44, 70, 20], "merge_kept": [60, 99, 70, 20]}
    with attach(model, "diffrate", None, **plan) as handle, torch.no_grad():
        hard, counts = model(x), handle.token_counts
    soft, handle = relaxed(model, plan, x)
    assert handle.token_counts == handle.planned_counts == [handle.layout.tokens] * 4
    assert (handle.tokens.policy.sum(1) == counts[-1]).all()
    assert_close(soft, hard, atol=1e-9, rtol=1e-9)


def test_one_block_of_merging_makes_the_tokens_of_evaluation_and_sizes_of_at_least_one_each():
    model, x = tiny(depth=1, global_pool="avg").double(), images().double()
    plan = {"prune_kept": [50], "merge_kept": [31]}
    with attach(model, "diffrate", None, **plan) as handle, torch.no_grad():
        model(x)
        hard = handle.tokens
    soft = relaxed(model, plan, x)[1].tokens
    for sample in range(2):
        kept = hard.steps[-1].kept[sample]
        assert (soft.policy[sample, kept] == 1).all()
        assert soft.policy[sample].sum() == 31
        assert_close(soft.x[sample, kept], hard.x[sample])
        members = hard.owner[sample].clamp(min=-1)
        count = torch.bincount(members[members >= 0], minlength=31)
        # evaluation adds cosines, training no less than 1 for each: here exactly 1, for cosines are below
        assert_close(soft.size[sample, kept], count.double())
        assert (hard.size[sample] <= soft.size[sample, kept] + 1e-12).all()


def test_merging_brings_at_least_one_and_more_by_similarity():
    x = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [3.0, 0.1]]], dtype=torch.float64)
    staying, leaving = torch.tensor([[[1.0, 0, 0]], [[0, 1, 1]]], dtype=torch.float64)
    merged, size = merge_softly(x, torch.tensor([[2.0, 1.0, 5.0]], dtype=torch.float64), staying, leaving)
    assert_close(merged[0, 0], x[0].mean(0))
    assert torch.equal(merged[0, 1:], x[0, 1:])
    similar = torch.cosine_similarity(x[0, 2], x[0, 0], dim=0)
    assert_close(size[0, 0], 2 + 1 + 5 * similar)  # 1 * cos 45 degrees is raised to 1
    assert size[0, 1:].tolist() == [1.0, 5.0]


def test_the_rates_learn_from_the_task_and_from_the_cost_and_the_model_does_not():
    model = tiny().requires_grad_(False)
    with attach(model, "diffrate", "r=1") as handle:
        reducer = handle.reducer.train()
        task = torch.autograd.grad(model(images()).square().sum(), list(reducer.parameters()))
        cost = torch.autograd.grad(reducer.expected_macs(), list(reducer.parameters()))
    assert [name for name, _ in reducer.named_parameters()] == ["prune_counts.logits", "merge_counts.logits"]
    for gradient in task:
        assert gradient.isfinite().all()
        assert gradient[:-1].any(dim=1).all()
        assert not gradient[-1].any()  # after the last attention nothing of the patches reaches the class token
    for gradient in cost:
        assert gradient.any(dim=1).all()
        assert (gradient[:, 0] > gradient[:, -1]).all()  # more cost where more tokens are likelier
    assert all(parameter.grad is None for parameter in model.parameters())


def test_counts_are_equally_likely_at_first_and_their_mean_is_rounded_up():
    counts = LearnedCounts(3, 18, 4)
    assert counts.counts.tolist() == [18, 14, 10, 6, 2]
    assert counts.expected().tolist() == [10, 10, 10]
    assert counts.stays(0).tolist() == [1.0] * 10 + [0.0] * 8
    (gradient,) = torch.autograd.grad(counts.stays(0)[5], counts.logits)  # the sixth patch: counts above 5
    above = torch.tensor([1.0, 1, 1, 1, 0])
    assert_close(gradient[0], 0.2 * (above - 0.8))
    steered(counts, [18, 2, 6])
    assert counts.expected().tolist() == [18, 2, 6]
    with torch.no_grad():
        counts.logits[1] = torch.tensor([-99.0, -99, -99, 0, 0])
    assert counts.expected().tolist() == [18, 4, 6]
    with torch.no_grad():
        counts.logits[1, 3] += 0.1
    assert counts.expected()[1] == 5


@pytest.mark.parametrize("options", [{}, {"global_pool": "avg"}, {"reg_tokens": 2}], ids=str)
def test_the_expected_cost_is_the_closed_form_of_the_plan(options):
    model = tiny(**options)
    with attach(model, "diffrate", "r=1") as handle:
        reducer, layout = handle.reducer, handle.layout
        steered(reducer.prune_counts, [64, 40, 48, 20])
        steered(reducer.merge_counts, [56, 44, 32, 8])
        prefix = layout.num_prefix
        assert reducer.kept_plan() == ([n + prefix for n in (64, 40, 48, 20)], [n + prefix for n in (56, 44, 32, 8)])
        leaving = [n + prefix for n in (56, 40, 32, 8)]
        traces = list(map(BlockTrace.plain, [layout.tokens, *leaving], leaving))
        assert reducer.expected_macs().item() == base_macs(layout, traces).total
        plain = [BlockTrace.plain(layout.tokens)] * 4
        assert reducer.baseline_macs == base_macs(layout, plain).total
        plan = dict(zip(("prune_kept", "merge_kept"), reducer.kept_plan(), strict=True))
    with attach(model, "diffrate", None, **plan) as handle, torch.no_grad():
        model(images())
        assert handle.token_counts == leaving


def test_masks_of_learned_counts_are_those_of_the_plan():
    model, x = tiny().double(), images().double()
    with attach(model, "diffrate", "r=1") as handle, torch.no_grad():
        handle.reducer.train()
        steered(handle.reducer.prune_counts, [60, 40, 40, 20])
        steered(handle.reducer.merge_counts, [52, 44, 32, 8])
        learned = model(x)
        plan = dict(zip(("prune_kept", "merge_kept"), handle.reducer.kept_plan(), strict=True))
    assert torch.equal(relaxed(model, plan, x)[0], learned)


def test_rates_of_another_model_are_refused():
    reducer = make_reducer("diffrate")
    attach(tiny(), reducer, "r=1").detach()
    with pytest.raises(RequestError, match="another model's") as caught:
        attach(tiny(img_size=24), reducer, "r=1")
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="step=0"):
        make_reducer("diffrate", step=0)
    with pytest.raises(ValueError, match="no rates are learned"):
        make_reducer("diffrate").expected_macs()
