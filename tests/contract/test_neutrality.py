"""A reducer that reduces nothing changes nothing, and one that is taken off leaves nothing behind."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelThingsBlock, VisionTransformer
from tiny_models import (
    EVERY_PAIR,
    MODELS,
    REDUCERS,
    SHAPE,
    make_images,
    make_model,
    on_a_third,
    on_pairs,
    rates,
    reducer_id,
    zero_rates,
)
from torch import nn

from suite import RequestError, attach, list_reducers
from suite.attachment.handle import handle_of
from suite.reducers.base import Reducer
from tests.tolerances import TINY32

reducers = pytest.mark.parametrize("name", REDUCERS, ids=reducer_id)


class Untouched(Reducer):
    """Is called in every block and takes nothing out, so that every block runs as a reducible one."""

    def leaving(self, count, amount):
        return count

    def after_attention(self, tokens, signals, amount):
        return tokens


@on_pairs(EVERY_PAIR, quick=4, part=2)
@torch.no_grad()
def test_zero_reduction_is_the_unmodified_model_bit_for_bit(name, kind):
    model = make_model(kind)
    images = make_images(model)
    whole, features = model(images), model.forward_features(images)
    for rate in zero_rates(name) if kind == "class token" else zero_rates(name)[:2]:
        with attach(model, name, rate) as handle:
            assert torch.equal(model(images), whole)
            assert handle.token_counts == [handle.layout.tokens] * len(model.blocks)
            assert handle.tokens.size is None
            assert torch.equal(handle.tokens.expand(), handle.tokens.x)
    with attach(model, name, zero_rates(name)[-1]):
        assert torch.equal(model.forward_features(images), features)
        assert torch.equal(model.forward_head(features), whole)


@pytest.mark.parametrize("name", ["tome", "topk"])
@torch.no_grad()
def test_no_change_of_flops_is_the_unmodified_model(name):
    model = make_model()
    images = make_images(model)
    whole = model(images)
    with attach(model, name, "flops=0%"):
        assert torch.equal(model(images), whole)


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_the_reducible_block_computes_what_the_original_block_does(kind):
    model = make_model(kind)
    images = make_images(model)
    whole = model(images)
    with attach(model, Untouched(), "r=1"):
        torch.testing.assert_close(model(images), whole, **TINY32)


@on_a_third(1)
@torch.no_grad()
def test_detaching_leaves_the_model_exactly_what_it_was(name, kind):
    model = make_model(kind)
    images = make_images(model)
    whole, cls, attributes = model(images), type(model), dict(model.__dict__)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = [dict(m._forward_hooks) | dict(m._forward_pre_hooks) for m in model.modules()]

    def unchanged_state():
        now = model.state_dict()
        return list(now) == list(state) and all(torch.equal(now[key], state[key]) for key in state)

    handle = attach(model, name, rates(name)[0])
    model(images)
    assert isinstance(model, cls)
    assert handle_of(model) is handle
    assert unchanged_state()
    handle.detach()
    handle.detach()
    assert type(model) is cls
    assert model.__dict__.keys() == attributes.keys()
    assert unchanged_state()
    assert [dict(m._forward_hooks) | dict(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert torch.equal(model(images), whole)


@reducers
@torch.no_grad()
def test_a_handle_attaches_again_and_gives_the_same_result(name):
    model = make_model()
    images = make_images(model)
    handle = attach(model, name, rates(name)[0])
    first, classes = model(images), type(model).__mro__
    handle.detach()
    assert not handle.attached
    for _ in range(3):
        with handle:
            assert torch.equal(model(images), first)
            assert type(model).__mro__ == classes
    assert type(model) is VisionTransformer


def test_an_error_inside_still_detaches():
    model = make_model()
    with pytest.raises(KeyError), attach(model, "tome", "r=6"):
        raise KeyError
    assert type(model) is VisionTransformer


@reducers
def test_a_copy_of_an_attached_model_is_independent_of_the_original(name):
    model = make_model()
    images = make_images(model)
    handle = attach(model, name, rates(name)[0])
    reduced = model(images)  # with gradients, as in training
    twin = copy.deepcopy(model)
    assert handle_of(twin) is not handle
    assert handle_of(twin).model is twin
    assert handle_of(twin).reducer is not handle.reducer
    handle.detach()
    with torch.no_grad():
        assert torch.equal(twin(images), reduced)
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.equal(twin(images), reduced)
    handle_of(twin).detach()
    assert type(twin) is VisionTransformer


@reducers
@torch.no_grad()
def test_threads_on_two_models_and_on_one_do_not_disturb_each_other(name):
    models = [make_model(), make_model("distilled")]
    batches = [[make_images(model, seed=seed) for seed in range(3)] for model in models]
    handles = [attach(model, name, rate) for model, rate in zip(models, (rates(name) * 2)[:2], strict=True)]
    expected = [[model(images) for images in batch] for model, batch in zip(models, batches, strict=True)]
    work = [(m, b) for _ in range(3) for m in range(2) for b in range(3)]

    def forward(place):
        with torch.no_grad():
            return models[place[0]](batches[place[0]][place[1]])

    with ThreadPoolExecutor(4) as pool:
        for (m, b), logits in zip(work, pool.map(forward, work), strict=True):
            assert torch.equal(logits, expected[m][b])
    for handle in handles:
        handle.detach()


@torch.no_grad()
def test_two_attached_models_do_not_leak_into_each_other():
    names = list_reducers()
    models = [make_model(seed=seed) for seed, _ in enumerate(names)]
    images = make_images(models[0])
    alone = []
    for model, name in zip(models, names, strict=True):
        with attach(model, name, rates(name)[0]) as handle:
            alone.append((model(images), handle.token_counts))
    handles = [attach(model, name, rates(name)[0]) for model, name in zip(models, names, strict=True)]
    outputs = [model(images) for model in models]
    for (logits, counts), now, handle in zip(alone, outputs, handles, strict=True):
        assert torch.equal(now, logits)
        assert handle.token_counts == counts


@torch.no_grad()
def test_one_reducer_serves_two_models():
    models = [make_model(), make_model("distilled")]
    with attach(models[0], "tome", "r=6") as first:
        expected = models[0](make_images(models[0]))
    with attach(models[0], first.reducer, "r=6"), attach(models[1], first.reducer, "r=3") as second:
        models[1](make_images(models[1]))
        assert torch.equal(models[0](make_images(models[0])), expected)
        assert second.token_counts == [63, 60, 57, 54]


def test_a_second_reducer_is_refused_with_the_name_of_the_first():
    model = make_model()
    with attach(model, "tome", "r=6"), pytest.raises(RequestError, match="'tome' attached; detach it first"):
        attach(model, "evit", "keep=0.7")
    handle = attach(model, "tome", "r=6")
    handle.detach()
    with attach(model, "evit", "keep=0.7"), pytest.raises(RequestError, match="'evit' attached; detach it first"):
        handle.attach()


def test_unreduced_intermediate_features_are_never_given_for_reduced_ones():
    model = make_model()
    with attach(model, "tome", "r=6"), pytest.raises(RuntimeError, match="detach"):
        model.forward_intermediates(make_images(model))
    model.forward_intermediates(make_images(model))


class OwnAttention(timm.models.vision_transformer.Attention):
    def forward(self, x, *args, **kwargs):
        return 2 * super().forward(x, *args, **kwargs)


def with_other_attention():
    model = VisionTransformer(**SHAPE)
    model.blocks[0].attn = OwnAttention(SHAPE["embed_dim"])
    return model


class OwnForward(VisionTransformer):
    def forward(self, x):
        return super().forward(2 * x)


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(3, 3),
        VisionTransformer(**SHAPE, block_fn=ParallelThingsBlock),
        with_other_attention(),
        OwnForward(**SHAPE),
        timm.create_model("test_efficientnet"),
    ],
    ids=["linear", "parallel blocks", "other attention", "own forward", "convolutional"],
)
def test_a_model_of_another_kind_is_refused_in_one_line_that_says_what_is_supported(model):
    with pytest.raises(RequestError, match="are supported") as caught:
        attach(model, "tome", "r=1")
    assert "\n" not in str(caught.value)
