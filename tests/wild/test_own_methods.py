"""Methods that users override or set on a model: what a reducer would pass by is refused, the rest is called."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from suite import RequestError, attach
from tests.wild.test_modules import SHAPE, make_images, make_model


class OwnFeatures(VisionTransformer):
    def forward_features(self, x, **options):
        return 2 * super().forward_features(x, **options)


class OwnHead(VisionTransformer):
    def forward_head(self, x, pre_logits=False):
        return 2 * super().forward_head(x, pre_logits)


class OwnPool(VisionTransformer):
    def pool(self, x, *options):
        return 2 * super().pool(x, *options)


class OwnPositions(VisionTransformer):
    def _pos_embed(self, x):
        return 2 * super()._pos_embed(x)


@pytest.mark.parametrize(
    ("kind", "pool", "name"),
    [(OwnFeatures, "token", "forward_features"), (OwnHead, "avg", "forward_head"), (OwnPool, "avg", "pool")],
)
def test_a_class_whose_own_method_a_reducer_would_pass_by_is_refused_by_its_name(kind, pool, name):
    with pytest.raises(RequestError, match=f"'{kind.__name__}' has a {name} of its own"):
        attach(kind(**SHAPE, global_pool=pool).eval(), "tome", "r=6")


@pytest.mark.parametrize("kind", [OwnHead, OwnPool, OwnPositions])
@torch.no_grad()
def test_a_class_whose_own_methods_are_called_is_accepted(kind):
    model = kind(**SHAPE).eval()
    expected = model(make_images())
    with attach(model, "tome", "r=0"):
        assert torch.equal(model(make_images()), expected)
    with attach(model, "tome", "r=6") as handle:
        assert not torch.equal(model(make_images()), expected)
        assert handle.token_counts[-1] == 41


@pytest.mark.parametrize("name", ["forward_features", "forward_head", "forward_intermediates"])
def test_a_method_that_is_set_on_a_model_is_refused_by_its_name(name):
    model = make_model()
    own = getattr(model, name)
    setattr(model, name, lambda *args, **options: own(*args, **options))
    with pytest.raises(RequestError, match=f"has a {name} of its own set on it") as caught:
        attach(model, "tome", "r=6")
    assert "\n" not in str(caught.value)
    delattr(model, name)
    attach(model, "tome", "r=6").detach()


def test_a_pooling_that_is_set_on_a_model_is_refused_where_sizes_matter():
    model = make_model(global_pool="avg")
    model.pool = lambda x, *options: x[:, 0]
    with pytest.raises(RequestError, match="has a pool of its own"):
        attach(model, "tome", "r=6")


@pytest.mark.parametrize("thing", ["deit_small_patch16_224", None, {}])
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(RequestError, match="is no model; pass a torch module"):
        attach(thing, "tome", "r=6")
