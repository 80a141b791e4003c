"""Prune-and-Merge gives what its authors' implementation gives: importance, plans, logits, gradients, cost."""

import numpy as np
import pytest
import recipe
import torch
from recent import INPUTS, official, on_cases, stored

from suite import attach
from suite.measure.flops import count_macs_fast
from suite.rates.rate import LearnedPlan
from suite.reducers import make_reducer
from suite.tokens.segments import plan_blocks

CASES = ("pm_t_01_06", "pm_t_02_04")


def planned(outputs, params, dtype):
    """The method with the plan of a case, made of the authors' importance."""
    importance = torch.from_numpy(outputs["seq_ranks" if dtype == torch.float32 else "seq_ranks64"])
    plans = plan_blocks(importance, params["merge_list"], params["prune_rate"], params["keep_rate"], 14, 1)
    made = make_reducer("prune_and_merge")
    made.follow(plans)
    return made.float()  # what the authors have is single in either precision


@on_cases("unit_pm_plan")
def test_matrices_of_a_small_grid_are_the_authors(name):
    outputs, _ = stored(name)
    plans = plan_blocks(torch.from_numpy(outputs["seq_ranks"]), [0, 1, 3], 0.1, 0.6, 8, 1)
    for block, plan in plans.items():
        assert len(plan.merge) == outputs["channels"][block]
        np.testing.assert_allclose(plan.merge, outputs[f"merge_{block}"], atol=1e-6)
        np.testing.assert_allclose(plan.recover, outputs[f"recover_{block}"], atol=1e-6)
        assert (plan.alive.numpy() == outputs[f"alive_{block}"]).all()


@on_cases(*CASES)
def test_plans_are_the_authors(name):
    outputs, entry = stored(name)
    made = planned(outputs, entry["params"], torch.float64)
    for row, (block, matrices) in enumerate(made.blocks.items()):
        owner = outputs[f"owner_{block}"].astype(int)
        merge, recover = matrices.merge.detach().numpy(), matrices.recover.detach().numpy()
        assert ((merge > 0).sum(0) == (owner >= 0)).all()
        assert (merge.argmax(0)[owner >= 0] == owner[owner >= 0]).all()
        np.testing.assert_allclose(merge.max(0), outputs[f"weight_{block}_64"], atol=1e-6)
        np.testing.assert_allclose(recover.max(1), outputs[f"recover_{block}_64"], atol=1e-6)
        assert (matrices.alive.numpy() == outputs["token_mask"][row]).all()


@on_cases(*CASES)
@pytest.mark.parametrize("image", INPUTS)
@pytest.mark.parametrize(("dtype", "array", "bound"), [("float32", "logits", 1e-5), ("float64", "logits64", 1e-6)])
@torch.no_grad()
def test_logits_and_counts_are_the_authors(name, image, dtype, array, bound):
    """In double precision but for the matrices, whose values are single."""
    outputs, entry = stored(name)
    model, precision = official(entry["model"], getattr(torch, dtype)), getattr(torch, dtype)
    images = torch.from_numpy(INPUTS[image](entry["model"])).to(precision)
    with attach(model, planned(outputs, entry["params"], precision), LearnedPlan(1)) as handle:
        logits = model(images)
        assert np.abs(logits.numpy() - outputs[f"{image}_{array}"]).max() <= bound
        assert handle.token_counts == handle.planned_counts == entry["token_counts"]["inside_block"]
        assert handle.tokens.count == 197


@on_cases(*CASES)
def test_gradients_of_both_matrices_are_the_authors(name):
    outputs, entry = stored(name)
    model, made = official(entry["model"], torch.float64), planned(outputs, entry["params"], torch.float64)
    with attach(model, made, LearnedPlan(1)):
        logits = model(torch.from_numpy(recipe.smooth(entry["model"])).double())
        (logits * torch.from_numpy(recipe.rng(4).standard_normal(logits.shape))).sum().backward()
    for block, matrices in made.blocks.items():
        for which in ("merge", "recover"):
            norm = getattr(matrices, which).grad.norm().item()
            assert norm == pytest.approx(float(outputs[f"grad_{which}_l2_{block}"]), rel=1e-5)
    matrices = made.blocks[str(int(outputs["grad_layer"]))]
    for which in ("merge", "recover"):
        wanted = outputs[f"grad_{which}_64"]
        assert np.abs(getattr(matrices, which).grad.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


@on_cases(*CASES)
def test_the_cost_lacks_what_the_authors_code_multiplies_for_the_tokens_that_pass_a_block_by(name):
    outputs, entry = stored(name)
    model, images = official(entry["model"]), torch.from_numpy(recipe.smooth(entry["model"])[:1])
    with attach(model, planned(outputs, entry["params"], torch.float32), LearnedPlan(1)):
        diagonal = 197**2 * 192 * len(entry["params"]["merge_list"])  # a dense matrix; here element by element
        assert (count_macs_fast(model, images) + diagonal) / 1e9 == pytest.approx(entry["gflops"], abs=1e-6)
