"""CUDA graphs, as far as they can be proved without CUDA: their input, their check, and what is refused."""

import pytest
import torch
from tiny_vit import images, make_model

from suite import attach
from suite.measure.runtimes import make_runtime
from suite.measure.runtimes.graphs import GraphInput, differences


def test_a_batch_is_copied_in_unless_it_lies_there_unchanged():
    example, other = torch.ones(2, 3), torch.zeros(2, 3)
    held = GraphInput(example)
    assert held.images is not example
    held.images.fill_(7)  # to see what is copied
    held.load(example)
    assert (held.images == 7).all()
    example.add_(1)
    held.load(example)
    assert (held.images == 2).all()
    held.load(other)
    assert (held.images == 0).all()
    held.load(example)
    assert (held.images == 2).all()


def test_of_a_tensor_that_counts_no_changes_every_batch_is_copied():
    with torch.inference_mode():
        example = torch.ones(2, 3)
        held = GraphInput(example)
        example.add_(1)
        held.load(example)
        assert (held.images == 2).all()


def test_a_batch_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"batches \(2, 3\) was given one of \(1, 3\)"):
        GraphInput(torch.ones(2, 3)).load(torch.ones(1, 3))


def test_a_replay_that_is_not_the_eager_output_is_said_beside_what_two_eager_ones_differ_by():
    eager = {"logits": torch.tensor([1.0, float("nan"), float("inf")])}
    assert differences(eager, {"logits": eager["logits"].clone()}, eager) == ()
    (note,) = differences({"logits": torch.tensor([1.5, float("nan"), float("inf")])}, eager, eager)
    assert (
        note == "the first replay differs from the eager forward by up to 5.0e-01, two eager forwards by up to 0.0e+00"
    )
    (note,) = differences({"logits": torch.tensor([1.0, 2.0, float("inf")])}, eager, eager)
    assert "by up to inf" in note


def test_a_method_whose_token_counts_depend_on_the_image_is_refused_before_anything_is_captured():
    model, runtime = make_model(), make_runtime("graphs")
    with attach(model, "ats", "keep=0.7"), pytest.raises(ValueError, match="how many tokens stay depends on the image"):
        runtime.prepare(model, images())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="capturing a CUDA graph needs a GPU")
def test_replays_of_several_graphs_in_turn_are_the_eager_forwards_bit_by_bit():
    model, runtime = make_model().cuda(), make_runtime("graphs")
    batch, prepared = images(4).cuda(), {}
    with torch.inference_mode():
        for rate in (None, "r=4", "r=6"):
            with attach(model, "tome", rate):
                prepared[rate] = runtime.prepare(model, batch)
        for rate in (None, "r=6", "r=4", None):
            for given in (batch, batch.flip(0)):
                with attach(model, "tome", rate):
                    assert torch.equal(prepared[rate].forward(given), model(given))
    assert all(one.notes == () and one.peak > 0 for one in prepared.values())
