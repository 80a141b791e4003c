"""Prune-and-Merge: plans by hand, what their matrices owe, and a block that runs on what they leave."""

import pytest
import torch
from reducer_steps import images, tiny

from suite import RequestError, attach
from suite.attachment.reducer_weights import write_tensors
from suite.formats.program import export_program
from suite.rates.rate import LearnedPlan
from suite.reducers import make_reducer
from suite.tokens.segments import even_merge, plan_blocks, plan_segments, segment_ends


def importance(blocks=4, patches=64, seed=0):
    return torch.rand(blocks, patches, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def follow(plans):
    made = make_reducer("prune_and_merge")
    made.follow(plans)
    return made


def test_a_plan_of_four_patches_by_hand():
    score, alive = torch.tensor([0.5, 0.0, 0.4, 0.3]), torch.tensor([True, False, True, True])
    plan = plan_segments(score, alive, [0, 2], columns=2, num_prefix=1)
    wanted = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0.75]])
    torch.testing.assert_close(plan.merge, wanted)
    torch.testing.assert_close(plan.recover[:, 2], torch.tensor([0.0, 0, 0, 0.64, 0.48]))
    assert plan.alive.tolist() == [1, 1, 0, 1, 1]
    assert plan.part.tolist() == [0, 1, 2, 2, 2]
    importance = torch.tensor([[0.5, 0.1, 0.4, 0.3]])
    torch.testing.assert_close(plan_blocks(importance, [0], 0.25, 0.5, 2, 1)[0].merge, wanted)


def test_segments_end_half_way_or_where_the_row_does_and_a_last_column_counts_for_the_next_row():
    assert segment_ends([0, 2], 4, 2) == [1, 4]
    assert segment_ends([1, 9], 16, 4) == [4, 16]
    assert segment_ends([3, 9], 16, 4) == [6, 16]


def test_what_the_matrices_owe():
    plans = plan_blocks(importance(), [0, 1, 3], 0.1, 0.6, 8, 1)
    assert sum(len(plan.merge) - 1 for plan in plans.values()) == int(64 * 0.6) * 3
    assert sum(int((plan.alive == 0).sum()) for plan in plans.values()) == int(64 * 0.1) * 3
    for plan in plans.values():
        assert ((plan.merge != 0).sum(0) <= 1).all()
        torch.testing.assert_close(plan.merge @ plan.recover, torch.eye(len(plan.merge), dtype=torch.float64))
        torch.testing.assert_close(plan.recover, torch.linalg.pinv(plan.merge))
        gone = plan.alive == 0
        assert not plan.merge[:, gone].any()
        assert not plan.recover[gone].any()
        assert (plan.part.diff() >= 0).all()
        assert (plan.merge[:, ~gone].argmax(0) == plan.part[~gone]).all()


@torch.no_grad()
def test_a_block_runs_on_segments_and_pruned_patches_pass_it_by():
    model = tiny().double()
    plan = plan_blocks(importance(), [2], 0.2, 0.4, 8, 1)[2]
    seen = []
    hook = model.blocks[3].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = model.patch_drop(model._pos_embed(model.patch_embed(images().double())))
    for block in model.blocks[:2]:
        x = block(x)
    expected = plan.recover @ model.blocks[2](plan.merge @ x) + (1 - plan.alive)[:, None] * x
    with attach(model, follow({2: plan}), LearnedPlan(1)) as handle:
        model(images().double())
        assert handle.token_counts == handle.planned_counts == [65, 65, len(plan.merge), 65]
    hook.remove()
    torch.testing.assert_close(seen[-1], expected)
    assert torch.equal(seen[-1][:, plan.alive == 0], x[:, plan.alive == 0])


@torch.no_grad()
def test_matrices_of_one_are_the_model():
    model = tiny().double()
    whole = model(images().double())
    plan = plan_segments(torch.ones(64).double(), torch.ones(64, dtype=torch.bool), list(range(64)), 8, 1)
    first = plan_segments(torch.ones(64).double(), torch.ones(64, dtype=torch.bool), [*range(63)], 8, 1)
    torch.testing.assert_close(plan.merge, torch.eye(65).double())
    with attach(model, follow({0: plan, 1: first}), LearnedPlan(1)):
        assert not torch.allclose(model(images().double()), whole)
    with attach(model, follow({0: plan}), LearnedPlan(1)):
        torch.testing.assert_close(model(images().double()), whole)


def test_an_unlearned_plan_has_segments_of_even_length():
    merge = even_merge(64, 16, 8, 2, torch.float32, torch.device("cpu"))
    assert merge.shape == (18, 66)
    assert merge[2:].sum(1).tolist() == [4.0] * 16


@pytest.mark.parametrize(
    ("patches", "centres", "columns", "prefix"), [(196, 103, 14, 1), (49, 20, 7, 2), (64, 64, 8, 0)]
)
def test_an_unlearned_plan_is_that_of_patches_that_are_all_worth_the_same(patches, centres, columns, prefix):
    at = [(2 * place + 1) * patches // (2 * centres) for place in range(centres)]
    plan = plan_segments(torch.ones(patches), torch.ones(patches, dtype=torch.bool), at, columns, prefix)
    assert torch.equal(even_merge(patches, centres, columns, prefix, torch.float32, torch.device("cpu")), plan.merge)


def test_a_program_is_no_longer_the_more_segments_there_are():
    def nodes(rate):
        model = tiny()
        with attach(model, "prune_and_merge", rate):
            return len(export_program(model, images()).graph.nodes)

    assert nodes("keep=0.9") == nodes("keep=0.3")


def test_both_matrices_learn_in_every_block():
    model, made = tiny(), follow(plan_blocks(importance().float(), [0, 1, 3], 0.1, 0.6, 8, 1))
    with attach(model, made, LearnedPlan(1)):
        model(images()).square().sum().backward()
    for matrices in made.blocks.values():
        assert matrices.merge.grad.abs().sum() > 0
        assert matrices.recover.grad.abs().sum() > 0
        assert not matrices.alive.requires_grad


@torch.no_grad()
def test_a_weights_file_brings_its_plan(tmp_path):
    model, file = tiny(), tmp_path / "pm.safetensors"
    made = follow(plan_blocks(importance().float(), [1, 2], 0.1, 0.5, 8, 1))
    with attach(model, made, LearnedPlan(1)) as handle:
        logits, counts = model(images()), handle.token_counts
    write_tensors(file, made.state_dict(), reducer="prune_and_merge")
    with attach(model, "prune_and_merge", "plan=1", weights=file) as handle:
        assert handle.reducer.trained
        assert torch.equal(model(images()), logits)
        assert handle.token_counts == counts
    with pytest.raises(RequestError, match="takes plan=1 or flops"):
        attach(model, "prune_and_merge", "keep=0.5", weights=file)
    with pytest.raises(RequestError, match="are of 65 tokens; the model has 4 blocks and 50 tokens"):
        attach(tiny(img_size=28), "prune_and_merge", "plan=1", weights=file)
    state = {key: value for key, value in made.state_dict().items() if key != "blocks.1.part"}
    write_tensors(file, state, reducer="prune_and_merge")
    with pytest.raises(RequestError, match=r"it has blocks.1.merge, but no blocks.1.part"):
        attach(model, "prune_and_merge", "plan=1", weights=file)


@pytest.mark.parametrize(
    ("prune", "keep", "said"),
    [(0.5, 0.6, "leave nothing to merge"), (0.1, 0.0, "leave nothing"), (0.0, 0.02, "no patch of block")],
)
def test_shares_that_leave_no_plan_are_refused(prune, keep, said):
    flat = torch.ones(2, 64) + torch.linspace(0, 1e-3, 64)
    with pytest.raises(ValueError, match=said):
        plan_blocks(flat, [0, 1], prune, keep, 8, 1)
