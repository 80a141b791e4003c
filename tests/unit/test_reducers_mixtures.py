"""Soft mixtures of all patches: what they make, what they learn, and what they refuse."""

import pytest
import torch
from tiny_vit import images, make_model

from suite import RequestError, attach
from suite.attachment.reducer_weights import read_reducer_weights, write_tensors
from suite.measure.flops import count_flops
from suite.reducers import make_reducer
from suite.reducers.sinkhorn import transport
from tests.tolerances import TINY32

SOFT = ["patchmerger", "sinkhorn", "sit"]


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
        torch.testing.assert_close(model(images()), logits, **TINY32)
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
        write_tensors(tmp_path / "weights.safetensors", handle.reducer.state_dict(), reducer=handle.reducer.name)
    with attach(model, name, "keep=0.5", weights=tmp_path / "weights.safetensors") as again:
        assert again.reducer.trained
        assert torch.equal(model(images()), logits)
    with pytest.raises(RequestError, match="do not fit"):
        attach(model, name, "keep=0.5@1", weights=tmp_path / "weights.safetensors")
    with pytest.raises(RequestError, match=f"of reducer '{name}'"):
        read_reducer_weights(make_reducer("dpcknn"), tmp_path / "weights.safetensors")


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
