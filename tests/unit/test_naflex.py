"""timm's NaFlexVit: position embeddings of every kind, images of every size, heads that leave registers out."""

from dataclasses import replace

import pytest
import timm
import torch
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg

from suite import RequestError, attach, count_flops
from suite.backbones import family_of
from suite.models.classifier_files import build_classifier, load_classifier
from suite.models.registry import find_entry
from suite.models.timm_models import find_timm_models
from suite.reducers import make_reducer
from suite.reducers.base import Reducer
from tasks.reading.images import TimmPreprocessing
from tests.tolerances import TINY32

SHAPE = {
    "img_size": 32,
    "pos_embed_grid_size": None,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 10,
}
RADIO = {"final_norm": False, "pos_embed_interp_mode": "bilinear", "pos_embed_antialias": False}
KINDS = {
    "registers, average": {"reg_tokens": 4, "global_pool": "avg", "init_values": 0.5},
    "keeps the aspect ratio": {"pos_embed_ar_preserving": True, "global_pool": "avg"},
    "factorized": {"pos_embed": "factorized", "pos_embed_ar_preserving": True, "reg_tokens": 4, "global_pool": "avg"},
    "register, attention pool": {"reg_tokens": 1, "global_pool": "map"},
    "attention pool with prefix": {"reg_tokens": 1, "global_pool": "map", "pool_include_prefix": True},
    "class token": {"class_token": True, "reg_tokens": 2, "global_pool": "token", **RADIO},
    "convolution, two pools": {"embed_proj_type": "conv", "global_pool": "avgmax"},
    "EVA's blocks": {"attn_type": "eva", "swiglu_mlp": True, "qkv_fused": False, "global_pool": "avg"},
    "rotary": {"rope_type": "axial", "class_token": True, "global_pool": "token"},
    "rotary by head and block": {"rope_type": "mixed", "pos_embed": "none", "global_pool": "avg", "reg_tokens": 1},
}
OPTIONS = NaFlexVitCfg.__dataclass_fields__
if "rope_mrope_section" in OPTIONS:  # the newer the installed timm, the more there is
    KINDS["DINOv3's rotations"] = {"rope_type": "dinov3", "rope_rotate_half": True, "global_pool": "avg"}
    KINDS["rotated in sections, gated, fewer heads of keys"] = {
        **{"rope_type": "mrope", "rope_mrope_section": (2, 3, 3), "global_pool": "map"},
        **{"attn_gated": True, "num_kv_heads": 1, "qkv_fused": False},
    }
# timm of before makes the rotations of heads by a product, which is no part of the closed form: 0.2 % of these
COUNTED = [kind for kind in KINDS if "mrope" in str(OPTIONS) or kind != "rotary by head and block"]
SIZES = [(32, 32), (48, 24)]
POOLED = ["registers, average", "register, attention pool", "attention pool with prefix", "convolution, two pools"]
NAMES = timm.list_models("naflexvit_*")
kinds = pytest.mark.parametrize("kind", KINDS)


def make(kind="registers, average", **options):
    torch.manual_seed(0)
    return strengthened(NaFlexVit(**{**SHAPE, **KINDS[kind], **options}))


def strengthened(model):
    """The same with weights strong enough that its tokens differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def pictures(size=(32, 32)):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@kinds
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_without_reduction_it_is_the_unmodified_model_bit_for_bit_at_any_size(kind, size):
    model, x = make(kind), pictures(size)
    whole, features = model(x), model.forward_features(x)
    with attach(model, "tome", "r=0") as handle:
        assert torch.equal(model(x), whole)
        assert torch.equal(model.forward_features(x), features)
        assert torch.equal(model.forward_head(features), whole)
        assert handle.token_counts == [features.shape[1]] * 3
    assert type(model) is NaFlexVit


class Untouched(Reducer):
    """Is called in every block and takes nothing out, so that every block runs as a reducible one."""

    def leaving(self, count, amount):
        return count

    def after_attention(self, tokens, signals, amount):
        return tokens


@kinds
@torch.no_grad()
def test_the_reducible_block_computes_what_the_original_block_does(kind):
    model, x = make(kind), pictures()
    whole = model(x)
    with attach(model, Untouched(), "r=1"):
        torch.testing.assert_close(model(x), whole, **TINY32)


@pytest.mark.parametrize("kind", COUNTED)
@pytest.mark.parametrize("size", SIZES)
def test_counters_and_closed_form_agree_at_any_size(kind, size):
    model = make(kind)
    whole = count_flops(model, size)
    assert whole.total == whole.formula == whole.torch
    assert whole.by_part["patch_embed"] == (size[0] // 8) * (size[1] // 8) * 3 * 8 * 8 * 32
    with attach(model, "tome", "r=2"):
        report = count_flops(model, size)
    assert report.total - report.reducer == report.formula < whole.total
    assert report.total == report.torch
    assert not [op for op in report.uncounted if "all pairs" not in op]


PATCHES = torch.tensor([0, 4, 5, 9])


class KeepFew(Reducer):
    """The same patches of every image, before the first block."""

    def before_block(self, tokens, signals, amount):
        return tokens.keep((tokens.num_prefix + PATCHES).expand(len(tokens.x), -1))


@kinds
@torch.no_grad()
def test_a_pruned_model_is_the_model_on_those_patches_at_their_places(kind):
    model = make(kind)
    prefix = model.num_prefix_tokens
    embedded = model._forward_embeds(pictures(), None, None, None)
    x, rotations = embedded["patches"], embedded["rope_embeds"]
    x = torch.cat([x[:, :prefix], x[:, prefix + PATCHES]], dim=1)
    for index, block in enumerate(model.blocks):
        if rotations is None:
            x = block(x)
        else:
            x = block(x, rope=(rotations[index] if model.rope_is_mixed else rotations)[..., PATCHES, :])
    expected = model.forward_head(model.norm(x))
    with attach(model, KeepFew(), "r=12@0"):
        torch.testing.assert_close(model(pictures()), expected, **TINY32)


@pytest.mark.parametrize("kind", POOLED)
@torch.no_grad()
def test_the_head_pools_every_token_that_is_stood_for(kind):
    model = make(kind)
    with attach(model, "tome", "r=4") as handle:
        features = model.forward_features(pictures())
        reduced = model.forward_head(features)
        expanded = handle.tokens.expand(features)
    assert expanded.shape[1] > features.shape[1]
    torch.testing.assert_close(reduced, model.forward_head(expanded), **TINY32)


@pytest.mark.parametrize(("name", "rate"), [
    ("tome", "r=2"), ("pitome", "keep=0.8"), ("tofu", "r=2"), ("mctf", "r=2"), ("dtem", "r=2"), ("evit", "keep=0.7"),
    ("topk", "keep=0.7"), ("resize", "side=24"),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["class token", "rotary"])
@torch.no_grad()
def test_methods_leave_as_many_tokens_as_planned(name, rate, kind):
    model, x = make(kind), pictures()
    whole = model(x)
    with attach(model, name, rate) as handle:
        reduced = model(x)
        assert handle.token_counts == handle.planned_counts
        assert handle.token_counts[-1] < handle.layout.tokens
    assert reduced.isfinite().all()
    assert not torch.allclose(reduced, whole)


def test_a_method_that_needs_a_class_token_is_refused_where_registers_are_all_that_there_is():
    with pytest.raises(RequestError, match="the model has no class token"):
        attach(make("registers, average"), "evit", "keep=0.7")


@kinds
@torch.no_grad()
def test_a_smaller_image_is_the_same_models_own_answer_to_it(kind):
    model = make(kind)
    small = make_reducer("resize")("before_embedding", pictures(), (24, 24))
    expected = model(small)
    with attach(model, "resize", "side=24") as handle:
        assert torch.equal(model(pictures()), expected)
        assert handle.token_counts == handle.planned_counts == [9 + model.num_prefix_tokens] * 3
        assert count_flops(model).total == count_flops(make(kind), 24).total


@torch.no_grad()
def test_an_image_that_is_padded_to_whole_patches_has_as_many_as_timm_makes():
    model, x = make("convolution, two pools", dynamic_img_pad=True), pictures((33, 30))
    whole = model(x)
    with attach(model, "tome", "r=0") as handle:
        assert torch.equal(model(x), whole)
        assert handle.token_counts == [5 * 4] * 3
        assert count_flops(model, (33, 30)).formula == count_flops(model, (33, 30)).total


@pytest.mark.parametrize("kind", ["registers, average", "rotary", "rotary by head and block"])
def test_patches_that_are_dropped_in_training_are_dropped_with_their_places(kind):
    model, x = make(kind, patch_drop_rate=0.5).train(), pictures()
    torch.manual_seed(2)
    expected = model(x)
    with attach(model, Untouched(), "r=1") as handle:
        torch.manual_seed(2)
        torch.testing.assert_close(model(x), expected, **TINY32)
        assert handle.token_counts == [8 + model.num_prefix_tokens] * 3


def given_as_patches():
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    patches = pictures().unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).flatten(1, 2).flatten(2)
    coordinates = torch.stack([rows, columns], dim=-1).flatten(0, 1).expand(2, -1, -1)
    return {"patches": patches, "patch_coord": coordinates, "patch_valid": torch.ones(2, 16, dtype=torch.bool)}


@torch.no_grad()
def test_patches_of_several_sizes_are_refused_in_one_line_that_says_what_to_give():
    model, given = make(), given_as_patches()
    torch.testing.assert_close(model(given), model(pictures()), **TINY32)
    calls = [
        lambda: model(given),
        lambda: model(given["patches"], given["patch_coord"], given["patch_valid"]),
        lambda: model(pictures(), attn_mask=torch.zeros(20, 20)),
        lambda: model.forward_features(**given),
        lambda: model.forward_head(torch.zeros(2, 20, 32), patch_valid=given["patch_valid"]),
    ]
    with attach(model, "tome", "r=2"):
        for call in calls:
            with pytest.raises(RequestError, match=r"images \(B, 3, H, W\).*detach the reducer") as caught:
                call()
            assert "\n" not in str(caught.value)
    model(given)


@pytest.mark.skipif("num_kv_heads" not in OPTIONS, reason="blocks of this timm have as many heads of keys as others")
def test_blocks_of_different_costs_are_refused():
    with pytest.raises(RequestError, match="blocks of different costs"):
        attach(make("rotary", num_kv_heads=(1, 2, 1), qkv_fused=False), "tome", "r=2")


def test_every_name_of_timm_is_listed_without_a_reason_against_it():
    listed = {model.name: model.refused for model in find_timm_models() if model.name.startswith("naflexvit")}
    assert listed == dict.fromkeys(NAMES, "")
    assert len(NAMES) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_timm_is_taken_at_the_size_that_its_images_have(name):
    with torch.device("meta"):
        model = timm.create_model(name, depth=2)
    family = family_of(model)
    size = model.pretrained_cfg["input_size"][1:]
    assert family.image_size(model) == size == TimmPreprocessing.of(model).input_size[1:]
    layout = family.layout(model)
    assert layout.grid == (size[0] // 16, size[1] // 16)
    assert layout.num_class == ("radio" in name)
    assert layout.num_prefix == model.num_prefix_tokens


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224"])
@torch.no_grad()
def test_other_names_of_timm_that_are_built_as_naflex_are_taken_too(name):
    model = strengthened(timm.create_model(name, use_naflex=True, depth=2, img_size=112))
    assert isinstance(model, NaFlexVit)
    assert family_of(model).image_size(model) == (112, 112) == TimmPreprocessing.of(model).input_size[1:]
    x = pictures((112, 112))
    whole = model(x)
    with attach(model, "tome", "r=0"):
        assert torch.equal(model(x), whole)
    with attach(model, "tome", "r=8") as handle:
        model(x)
        assert handle.token_counts == handle.planned_counts


def test_a_model_that_is_loaded_for_another_image_size_is_given_images_of_that_size():
    entry, tiny = find_entry("naflexvit_base_patch16_gap"), {"depth": 1, "embed_dim": 32, "num_heads": 2}
    model = build_classifier(entry, image_size=48, **tiny)
    assert family_of(model).image_size(model) == TimmPreprocessing.of(model).input_size[1:] == (48, 48)
    with pytest.raises(RequestError, match="image size 50 is not a multiple of naflexvit_base_patch16_gap's patch"):
        build_classifier(entry, image_size=50, **tiny)


def test_a_file_of_its_weights_is_loaded_whole(tmp_path):
    entry, saved = find_entry("naflexvit_base_patch16_gap"), make("factorized", init_values=0.5, fc_norm=True)
    torch.save(saved.state_dict(), tmp_path / "a.pth")
    asked = {**SHAPE, **KINDS["factorized"], "pos_embed_grid_size": (4, 4)}  # timm fills in what is None
    tiny = replace(entry, shape={**entry.shape, **asked})
    model, _ = load_classifier(tiny, str(tmp_path / "a.pth"))
    assert torch.equal(model.eval()(pictures()), saved(pictures()))


def test_a_model_of_which_nobody_noted_a_size_has_as_many_patches_as_position_embeddings():
    model = make(img_size=None, pos_embed_grid_size=(3, 5))
    assert family_of(model).image_size(model) == (24, 40)
    assert family_of(model).layout(model).grid == (3, 5)
