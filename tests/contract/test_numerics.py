"""Every method in every precision, in training, and at another image size."""

from itertools import product

import pytest
import torch
from tiny_models import REDUCERS, inner_weights, make_images, make_model, on_a_third, on_pairs, rates, reducer_id

from suite import RequestError, attach
from suite.backbones.block import reducible_block
from suite.backbones.timm_vit import TimmViT
from suite.rates.schedule import resolve
from suite.reducers.base import Reducer
from suite.reducers.signals import BlockCall
from suite.tokens.state import Tokens
from tests.tolerances import BLOCK32, TINY32

reducers = pytest.mark.parametrize("name", REDUCERS, ids=reducer_id)
PER_PATCH = ("queries", "centres", "assignment")
HEADS = ["class token", "explicit attention", "average pool", "q/k norm", "GIT"]


@on_pairs(product(REDUCERS, HEADS), quick=3)
@torch.no_grad()
def test_half_precision_stays_finite_with_exact_sizes(name, kind):
    model = make_model(kind)
    images = make_images(model)
    with attach(model, name, rates(name)[0]) as handle:
        exact = model(images)
        logits = model.bfloat16()(images.bfloat16())
    assert logits.dtype == torch.bfloat16
    assert handle.tokens.x.dtype == torch.bfloat16
    assert handle.tokens.sizes.dtype == torch.float32
    assert not handle.reducer.exact_groups or (handle.tokens.sizes == handle.tokens.sizes.round()).all()
    assert (logits.float() - exact).abs().max() < 0.5 * exact.std()


@on_pairs(product(REDUCERS, HEADS), quick=3, part=1)
@torch.no_grad()
def test_autocast_stays_finite_with_exact_sizes(name, kind):
    model = make_model(kind)
    images = make_images(model)
    with attach(model, name, rates(name)[0]) as handle:
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
    assert handle.tokens.sizes.dtype == torch.float32
    assert not handle.reducer.exact_groups or (handle.tokens.sizes == handle.tokens.sizes.round()).all()
    assert (logits.float() - exact).abs().max() < 0.5 * exact.std()


@on_pairs(product(REDUCERS, HEADS), quick=3, part=2)
@torch.no_grad()
def test_double_precision_agrees_with_single_precision(name, kind):
    model = make_model(kind)
    images = make_images(model)
    with attach(model, name, rates(name)[0]) as handle:
        single, owner = model(images), handle.tokens.owner
        double = model.double()(images.double())
    assert double.dtype == torch.float64
    if handle.reducer.exact_groups:  # the largest of nearly equal shares is anybody's
        assert torch.equal(handle.tokens.owner, owner)
    torch.testing.assert_close(double.float(), single, **TINY32)


@torch.no_grad()
def test_half_precision_pools_many_tokens_by_their_exact_sizes():
    class Lump(Reducer):
        weighted_pooling = True

        def after_attention(self, tokens, signals, amount):
            sizes = torch.ones(tokens.x.shape[:2])
            sizes[:, -1] = 577 - tokens.count  # bfloat16 holds integers up to 256, the sum would be rounded to 576
            return Tokens(torch.ones_like(tokens.x), tokens.num_prefix, tokens.origin, sizes)

        def leaving(self, count, amount):
            return count

    model = make_model("average pool", depth=1).bfloat16()
    model.blocks[0].mlp.fc2.weight.zero_()
    model.blocks[0].mlp.fc2.bias.zero_()
    model.fc_norm = torch.nn.Identity()
    with attach(model, Lump(), "r=1"):
        assert (model.forward_head(model.forward_features(make_images(model).bfloat16()), pre_logits=True) == 1).all()


@on_a_third(2)
def test_gradients_reach_the_patch_embedding_and_every_block(name, kind):
    model = make_model(kind)
    with attach(model, name, rates(name)[0]):
        model(make_images(model)).square().sum().backward()
    for weight in inner_weights(model):
        assert weight.grad.isfinite().all()
        assert weight.grad.abs().sum() > 0


@reducers
@pytest.mark.parametrize("kind", ["class token", "explicit attention"])
def test_training_with_dropout_and_drop_path_runs(name, kind):
    model = make_model(kind, drop_path_rate=0.3, proj_drop_rate=0.1, attn_drop_rate=0.1, pos_drop_rate=0.1).train()
    with attach(model, name, rates(name)[0]) as handle:
        assert handle.reducer.training
        logits = model(make_images(model))
        logits.sum().backward()
        assert handle.planned_counts in (None, handle.token_counts)
        assert logits.isfinite().all()
        assert not torch.equal(model(make_images(model)), logits)


def test_a_reducer_trains_and_evaluates_with_its_model():
    model = make_model()
    with attach(model, "tome", "r=6") as handle:
        assert not handle.reducer.training
        model.train()
        assert handle.reducer.training
        model.eval()
        assert not handle.reducer.training
        handle.reducer.train()  # on its own, with a frozen backbone
        assert not model.training
    handle.detach()
    model.train()
    with handle:
        assert handle.reducer.training


def test_patches_dropped_in_training_are_planned_for():
    model = make_model(patch_drop_rate=0.25).train()
    with attach(model, "tome", "r=6") as handle, torch.no_grad():
        model(make_images(model))
        assert handle.trace[0].entering == 49
        assert handle.token_counts == handle.planned_counts == [43, 37, 31, 25]


@on_pairs(product(REDUCERS, [44, 24, 32]), quick=3, what="side")
@torch.no_grad()
def test_another_image_size_resolves_the_rate_anew(name, side):
    model = make_model("dynamic image size")
    for rate in rates(name)[:-1] or [None]:
        with attach(model, name, rate) as handle:
            try:
                tokens = handle.images.layout((side, side)).tokens
                plan = resolve(handle.rate, handle.reducer, depth=4, tokens=tokens, num_prefix=1)
            except RequestError:
                continue  # said in one line, below
            made = max((n for n, amount in zip(plan.counts, plan.amounts, strict=True) if amount), default=0) - 1
            if handle.reducer.learned in PER_PATCH and made > handle.layout.num_patches:
                with pytest.raises(ValueError, match="larger images"):  # learned for the model's own image size
                    model(torch.randn(2, 3, side, side))
                continue
            model(torch.randn(2, 3, side, side))
            if handle.reducer.input_dependent:
                assert handle.token_counts[-1] <= plan.counts[-1]
            else:
                assert handle.token_counts == list(plan.counts) == handle.planned_counts
            assert handle.tokens.owner.shape == (2, tokens)


def test_a_rate_that_a_smaller_image_cannot_give_is_one_line_with_the_numbers():
    model = make_model("dynamic image size")
    with attach(model, "tome", "r=20"), pytest.raises(RequestError, match="at most 18 of 37; use r<=18"):
        model(torch.randn(2, 3, 24, 24))


@pytest.mark.parametrize("kind", ["class token", "explicit attention", "q/k norm", "post-norm"])
@torch.no_grad()
def test_proportional_attention_is_attention_to_every_token_that_is_stood_for(kind):
    model, torch_rows = make_model(kind), torch.tensor([0, 1, 1, 2, 3, 3, 3])
    parts = TimmViT().blocks(model)[0]
    x = torch.randn(2, 4, 32)
    size = torch.bincount(torch_rows).float().expand(2, -1)

    class Proportional(Reducer):
        proportional_attention = True

    merged, *_ = reducible_block(parts, Tokens(x, 1, 7, size), Proportional(), BlockCall(0, 4, proportional=True))
    apart = parts.original(x[:, torch_rows])
    torch.testing.assert_close(merged.x[:, torch_rows], apart, **BLOCK32)


@pytest.mark.parametrize("kind", ["class token", "distilled", "registers", "q/k norm", "explicit attention"])
@torch.no_grad()
def test_class_attention_is_the_class_rows_of_the_attention_map(kind):
    class Watch(Reducer):
        proportional_attention = True
        seen = ()

        def after_attention(self, tokens, signals, amount):
            rows = signals.attention_map[:, :, : 2 if kind == "distilled" else 1].mean((1, 2))
            self.seen += ((signals.class_attention, rows, signals.keys.shape),)
            index = torch.arange(tokens.num_prefix, tokens.count - 1).expand(2, -1)
            return tokens.keep(index, fused=tokens.x[:, -1:])

        def leaving(self, count, amount):
            return count

    model, watch = make_model(kind), Watch()
    with attach(model, watch, "r=1"):
        model(make_images(model))
    assert len(watch.seen) == 4
    for attention, rows, keys in watch.seen:
        assert keys == (2, attention.shape[1], 16)
        torch.testing.assert_close(attention, rows)
        torch.testing.assert_close(attention.sum(1), torch.ones(2))


@pytest.mark.parametrize("kind", ["average pool", "average pool with prefix", "average and maximum pool"])
@torch.no_grad()
def test_weighted_pooling_is_the_pool_of_every_token_that_is_stood_for(kind):
    model = make_model(kind)
    with attach(model, "tome", "r=20") as handle:
        features = model.forward_features(make_images(model))
        reduced = model.forward_head(features)
    torch.testing.assert_close(reduced, model.forward_head(handle.tokens.expand(features)), **TINY32)
