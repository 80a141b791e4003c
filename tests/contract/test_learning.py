"""Methods that learn: untrained until weights are loaded, repeatable until then, apart from the backbone."""

import pytest
import torch
from tiny_models import REDUCERS, make_images, make_model, rates, reducer_id

from suite import RequestError, attach
from suite.attachment.reducer_weights import write_tensors
from suite.reducers import reducer_class

SCHEDULES = ("rates", "plan", "statistics")  # what some learn instead of weights; they have tests of their own
LEARNING = [name for name in REDUCERS if reducer_class(name).learned and reducer_class(name).learned not in SCHEDULES]
learning = pytest.mark.parametrize("name", LEARNING, ids=reducer_id)


@learning
@torch.no_grad()
def test_what_is_learned_is_saved_apart_from_the_backbone_and_read_again(name, tmp_path):
    model = make_model()
    images, keys = make_images(model), list(model.state_dict())
    with attach(model, name, rates(name)[0]) as handle:
        assert not handle.reducer.trained
        assert list(model.state_dict()) == keys
        untrained = model(images)
        for parameter in handle.reducer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        changed = model(images)
        write_tensors(
            tmp_path / "learned.safetensors",
            handle.reducer.state_dict(),
            reducer=handle.reducer.name,
            recipe={"epochs": 1},
        )
    assert not torch.equal(changed, untrained)
    with attach(model, name, rates(name)[0], weights=tmp_path / "learned.safetensors") as handle:
        assert handle.reducer.trained
        assert torch.equal(model(images), changed)


@learning
@torch.no_grad()
def test_untrained_runs_repeat_whatever_the_random_state(name):
    outputs = []
    for seed in (1, 2):
        model = make_model()
        images = make_images(model)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        with attach(model, name, rates(name)[0]):
            outputs.append(model(images))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*outputs)


@learning
def test_weights_of_another_model_are_refused_in_one_line(name, tmp_path):
    small, large = make_model(), make_model(embed_dim=64)
    with attach(large, name, rates(name)[0]) as handle:
        write_tensors(tmp_path / "large.safetensors", handle.reducer.state_dict(), reducer=handle.reducer.name)
    with pytest.raises(RequestError, match="do not fit") as caught:
        attach(small, name, rates(name)[0], weights=tmp_path / "large.safetensors")
    assert "\n" not in str(caught.value)


def test_a_method_that_learns_nothing_takes_no_weights_but_those_of_its_backbone(tmp_path):
    model, file = make_model(), tmp_path / "any.safetensors"
    write_tensors(file, {"embeddings.0.bias": torch.zeros(4)}, reducer="tome")
    with pytest.raises(RequestError, match="learns nothing"):
        attach(model, "tome", "r=3", weights=file)
    name, own = next(iter(model.named_parameters()))
    write_tensors(file, {f"backbone.{name}": own + 1}, reducer="tome")
    before = own.detach().clone()
    with attach(model, "tome", "r=3", weights=file):
        assert torch.equal(own, before + 1)
    assert torch.equal(own, before)
