"""The suite against a literal second implementation, at rates and on models that no reference outputs exist for."""

from functools import partial

import numpy as np
import pytest
import recipe
import timm
import torch
from reference import Reference, evit, tome
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from suite import attach
from suite.rates.rate import parse_rate
from suite.rates.schedule import r_per_block

TINY = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 5, "num_heads": 2, "num_classes": 10}
SMALL = "deit_small_patch16_224"
KINDS = {
    "class token": (VisionTransformer, {"heads": 2, "prefix": 1, "classes": 1}),
    "even number of tokens": (partial(VisionTransformer, img_size=(36, 28)), {"heads": 2, "prefix": 1, "classes": 1}),
    "distilled": (VisionTransformerDistilled, {"heads": 2, "prefix": 2, "classes": 2}),
    "LayerScale": (
        partial(VisionTransformer, init_values=0.5, no_embed_class=True),
        {"heads": 2, "prefix": 1, "classes": 1},
    ),
    "registers": (
        partial(VisionTransformer, reg_tokens=4, no_embed_class=True),
        {"heads": 2, "prefix": 5, "classes": 1},
    ),
    "q/k norm": (partial(VisionTransformer, qk_norm=True), {"heads": 2, "prefix": 1, "classes": 1}),
    "average pool": (
        partial(VisionTransformer, global_pool="avg"),
        {"heads": 2, "prefix": 1, "classes": 1, "weighted_pool": True},
    ),
    "average pool, no class token": (
        partial(VisionTransformer, global_pool="avg", class_token=False),
        {"heads": 2, "prefix": 0, "classes": 0, "weighted_pool": True},
    ),
}
MERGES = ["r=1", "r=7", "r=9:-1", "r=6:1", "r=6:-0.3", "r=[20, 0, 3, 11]", "r=30", "r=5@1,4"]
PRUNES = [("keep=0.7", (1, 2, 3)), ("keep=0.5@0,4", (0, 4)), ("keep=0.95@0,1,2,3,4", (0, 1, 2, 3, 4))]


def tiny(kind):
    make, about = KINDS[kind]
    torch.manual_seed(7)
    given = make.keywords if isinstance(make, partial) else {}
    model = make(**{**TINY, **given}).double().eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn_like(parameter)
            gain = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if gain else 0.3 * noise)
    return model, about, torch.randn(3, *model.patch_embed.img_size, dtype=torch.float64)


def compare(model, image, reducer, rate, reference, reduce, atol, **options):
    with torch.no_grad(), attach(model, reducer, rate, **options) as handle:
        logits = model(image[None])[0]
    wanted, owner, sizes, counts = reference(image.numpy(), reduce)
    assert handle.token_counts == counts
    assert (handle.tokens.owner[0].numpy() == owner).all()
    if (owner >= 0).all():
        assert (handle.tokens.sizes[0].numpy() == sizes).all()
    assert np.abs(logits.numpy() - wanted).max() <= atol


@pytest.mark.parametrize("proportional", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_merging_equals_the_literal_form_at_every_kind_of_rate(kind, proportional):
    model, about, image = tiny(kind)
    reference = Reference(model.state_dict(), proportional=proportional, **about)
    for rate in MERGES:
        amounts = r_per_block(parse_rate(rate), 5) if "@" not in rate else [0, 5, 0, 0, 5]
        reduce = tome(amounts, about["prefix"])
        compare(model, image, "tome", rate, reference, reduce, 1e-11, proportional_attention=proportional)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind][1]["classes"]])
def test_token_reorganisation_equals_the_literal_form_at_every_kind_of_rate(kind, fuse):
    model, about, image = tiny(kind)
    reference = Reference(model.state_dict(), proportional=False, **{**about, "weighted_pool": False})
    for rate, blocks in PRUNES:
        reduce = evit(float(rate.partition("=")[2].partition("@")[0]), blocks, about["prefix"], fuse)
        compare(model, image, "evit", rate, reference, reduce, 1e-11, fuse=fuse)


@pytest.fixture(scope="module")
def deit_small():
    model = timm.create_model(SMALL).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in recipe.weights(SMALL).items()}, strict=True)
    return model


@pytest.mark.parametrize("r", [13, 16])
def test_merging_on_deit_small_equals_the_literal_form(deit_small, r):
    reference = Reference(deit_small.state_dict(), heads=6, prefix=1, classes=1, proportional=True)
    image = torch.from_numpy(recipe.noise()[0])
    compare(deit_small, image, "tome", f"r={r}", reference, tome([r] * 12, 1), 1e-5)


@pytest.mark.parametrize("keep", [0.5, 0.7])
def test_token_reorganisation_on_deit_small_equals_the_literal_form(deit_small, keep):
    reference = Reference(deit_small.state_dict(), heads=6, prefix=1, classes=1, proportional=False)
    image = torch.from_numpy(recipe.smooth()[1])
    compare(deit_small, image, "evit", f"keep={keep}", reference, evit(keep, (3, 6, 9), 1), 1e-5)
