"""Prune-and-Merge: a plan from gradients, matrices and a model that are taught, a file that is read again."""

import math
from unittest.mock import patch

import pytest
import torch
from interrupting import Interrupting, Stop
from safetensors.torch import load_file
from small_fit import BATCH, float64_without_draws, make_session
from torch.testing import assert_close

from suite import RequestError, attach
from suite.attachment.reducer_weights import about
from suite.measure.flops import count_macs_fast
from suite.models.load import load_model
from suite.sweep.progress import Progress
from suite.train.examples import Order, read
from suite.train.key_importance import AttentionTimesGradient
from suite.train.recipes import prune_and_merge
from suite.train.recipes.prune_and_merge import softened_divergence
from suite.train.run import Request, train_method

SCORING = {"score_batches": 2, "score_batch_size": 3}
SMALL = {"batch_size": 2, "steps": 3, "score_batches": 1, "score_batch_size": 2}


def test_attention_times_its_gradient_of_two_tokens_by_hand():
    attention = torch.tensor([[0.5, 0.5], [0.25, 0.75]], requires_grad=True)
    values = torch.tensor([[1.0], [3.0]], requires_grad=True)
    attended = attention @ values  # (2, 2.5)
    (attended[0] + 2 * attended[1]).sum().backward()
    assert attention.grad.tolist() == [[1.0, 3.0], [2.0, 6.0]]
    by_map = (attention * attention.grad).mean(0)  # of (0.5, 0.5) and (1.5, 4.5)
    looking = AttentionTimesGradient()
    looking.note(0, values[None, None].detach(), values.grad[None, None])
    assert looking.means[0].tolist() == by_map.tolist() == [0.5, 3.0]


def gradients_of_maps(session):
    """(batches, L, N) of the model as it is: the mean over images, heads and queries of A * dL/dA, from the maps."""
    recipe = session.recipe.model_copy(update={"batch_size": 3, "steps": 2, "smoothing": 0.0, "erasing": 0.0})
    objective = type(session.objective)(session.task, session.model, recipe)
    found, maps = [], []

    def keep(_, given):
        given[0].retain_grad()
        maps.append(given[0])

    session.handle.detach()
    backbone = session.backbone.requires_grad_(True).eval()
    hooks = [block.attn.attn_drop.register_forward_pre_hook(keep) for block in backbone.blocks]
    for batch in read(objective, Order(BATCH, recipe), 0, 0):
        maps.clear()
        objective.loss(session.model, objective.prepare(batch)).backward()
        found.append(torch.stack([(a * a.grad).mean(dim=(0, 1, 2)) for a in maps]))
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
@float64_without_draws()
def test_importance_is_that_of_the_maps_absolute_batch_by_batch_without_the_class_token(kind):
    session = make_session("prune_and_merge", kind, **SCORING)
    importance = session.found["importance"]
    signed = gradients_of_maps(session)[..., -64:]
    assert signed.shape == (2, 4, 64)
    assert_close(importance, signed.abs().sum(0), rtol=1e-9, atol=1e-15)
    assert (importance > signed.sum(0).abs() * 1.01).any()  # opposite signs of two batches do not cancel


@float64_without_draws()
def test_the_plan_has_as_many_centres_and_pruned_patches_as_the_rate_says():
    session = make_session("prune_and_merge", "classification", **SCORING, rate="keep=0.5@1,3", prune=0.25)
    assert str(session.rate) == str(session.handle.rate) == "plan=1"
    made = session.reducer.blocks
    assert list(made) == ["1", "3"]
    assert sum(len(each.merge) - 1 for each in made.values()) == 2 * 32
    assert sum(int((each.alive == 0).sum()) for each in made.values()) == 2 * 16
    ranked = session.found["importance"][3].argsort()
    assert not made["3"].merge[:, 1 + ranked[0]].any()  # the patch that matters least is pruned
    assert made["3"].merge[:, 1 + ranked[-1]].amax().item() == pytest.approx(1)  # the one that matters most is a centre


@float64_without_draws()
def test_a_change_of_flops_is_what_the_plan_comes_to():
    session = make_session("prune_and_merge", "classification", **SCORING, rate="flops=-30%")
    image = torch.zeros(1, 3, 32, 32)
    reduced = count_macs_fast(session.model, image)
    session.handle.detach()
    assert reduced / count_macs_fast(session.model, image) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(("settings", "said"), [
    ({"rate": "keep=[0.7,0.6,0.5,0.4]"}, "is not one share of the patches; give keep=0.6"),
    ({"rate": "keep=0.6", "prune": 0.5}, "leave nothing to merge"),
    ({"rate": "keep=0.02"}, "no patch of block . is among the most important"),
    ({"rate": "r=8"}, "not defined for rate r=8"),
])  # fmt: skip
def test_rates_that_leave_no_plan_are_refused_in_one_line(settings, said):
    with pytest.raises(RequestError, match=said) as caught, float64_without_draws():
        make_session("prune_and_merge", "classification", **SCORING, **settings)
    assert "\n" not in str(caught.value)


def test_the_divergence_of_two_classes_by_hand():
    student, teacher = torch.zeros(1, 2), torch.tensor([[20 * math.log(3), 0.0]])  # softened: 1/2, 1/2 and 3/4, 1/4
    wanted = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) * 20**2 / 2
    assert softened_divergence(student, teacher, 20.0).item() == pytest.approx(wanted, rel=1e-5)
    assert softened_divergence(teacher, teacher, 20.0).item() == 0
    masks = softened_divergence(
        student[..., None, None].expand(1, 2, 3, 5), teacher[..., None, None].expand(1, 2, 3, 5), 20
    )
    assert masks.item() == pytest.approx(wanted, rel=1e-5)


@float64_without_draws()
def test_it_is_taught_by_the_unreduced_model_only_where_that_is_asked():
    taught, alone = (make_session("prune_and_merge", "classification", **SCORING, distill=d) for d in (2.0, 0.0))
    assert alone.teacher is None
    batch = next(read(taught.objective, Order(BATCH, taught.recipe), 0, 0))
    batch = taught.objective.prepare(batch)
    losses = {}
    for session in (taught, alone):
        losses[session], noted = session.recipe.loss(session, batch, 0)
        assert losses[session].item() == pytest.approx(noted["labels"] + session.recipe.distill * noted["distance"])
    assert losses[taught] > losses[alone]


def trained(out, **settings):
    request = Request("prune_and_merge", limit=4, workers=0, every=1, out=str(out))
    return train_method(request, {**SMALL, **settings}, Progress(quiet=True))


def test_a_trained_file_brings_plan_matrices_and_backbone(tmp_path):
    made = trained(tmp_path / "training")
    assert about(made.weights)["rate"] == "plan=1"
    state = load_file(made.weights)
    kept = [len(state[f"blocks.{block}.merge"]) for block in range(12)]
    learned = state["blocks.0.recover"] @ state["blocks.0.merge"]
    model, _ = load_model("scenes_vit", "embedded")
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = model(images)
        with attach(model, "prune_and_merge", "plan=1", weights=made.weights) as handle:
            reduced = model(images)
            assert handle.token_counts == handle.planned_counts == kept
            assert_close(handle.reducer.blocks["0"].recover @ handle.reducer.blocks["0"].merge, learned)
        with attach(
            load_model("scenes_vit", str(made.model))[0], "prune_and_merge", "plan=1", weights=made.weights
        ) as whole:
            assert torch.equal(whole.model(images), reduced)
        assert torch.equal(model(images), plain)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_bits_and_does_not_score_again(tmp_path):
    whole = trained(tmp_path / "whole")
    request = Request("prune_and_merge", limit=4, workers=0, every=1, out=str(tmp_path / "parts"))
    with pytest.raises(Stop):
        train_method(request, SMALL, Interrupting(tmp_path / "parts"))
    with patch.object(prune_and_merge, "measure_importance", side_effect=AssertionError("scored twice")):
        parts = train_method(request, SMALL, Progress(quiet=True))
    assert parts.weights.read_bytes() == whole.weights.read_bytes()
