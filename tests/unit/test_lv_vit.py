"""LV-ViT: its logits are those of its definition, its authors' files load strictly, and any method reduces it."""

import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config

from suite import RequestError, attach
from suite.backbones import family_of
from suite.backbones.lv_vit import LVViT
from suite.measure.flops import count_flops
from suite.models.load import load_model
from suite.models.registry import list_models
from suite.reducers.base import Reducer
from tests.tolerances import TINY32

tiny = partial(LVViT, img_size=32, patch_size=4, num_classes=10, embed_dim=32, depth=4, num_heads=2)


def strong(model):
    """Weights and batch statistics that differ everywhere, so that nothing can be left out unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in sorted(model.state_dict().items()):
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(1 + 0.1 * noise.abs() if "running_var" in name or value.dim() == 1 else 0.2 * noise)
    return model.eval()


def noise(batch=2, side=32):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def recomputed(state, images, heads=2, depth=4, divisor=2.0):
    """Logits straight from the definition of the model and the tensors of its state dict."""

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def convolved(x, index, stride, padding):
        x = F.conv2d(x, state[f"patch_embed.conv{index}.weight"], stride=stride, padding=padding)
        statistics = (state[f"patch_embed.bn{index}.{key}"] for key in ("running_mean", "running_var"))
        affine = (state[f"patch_embed.bn{index}.{key}"] for key in ("weight", "bias"))
        return F.batch_norm(x, *statistics, *affine).relu()

    def attention(x):
        batch, count, width = x.shape
        q, k, v = x.view(batch, count, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).reshape(batch, count, -1)

    x = convolved(convolved(convolved(images, 1, 2, 3), 2, 1, 1), 3, 1, 1)
    patch = state["patch_embed.proj.weight"].shape[-1]
    x = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    for index in range(depth):
        block = f"blocks.{index}"
        attended = attention(linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv"))
        x = x + linear(attended, f"{block}.attn.proj") / divisor
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2") / divisor
    x = norm(x, "norm")
    return linear(x[:, 0], "head") + 0.5 * linear(x[:, 1:], "aux_head").max(dim=1).values


@torch.no_grad()
def test_logits_are_those_of_the_definition():
    model = strong(tiny())
    torch.testing.assert_close(model(noise()), recomputed(model.state_dict(), noise()), **TINY32)


@torch.no_grad()
def test_branches_are_divided_by_skip_lam():
    halved, whole = strong(tiny()), strong(tiny(skip_lam=1.0))
    expected = recomputed(whole.state_dict(), noise(), divisor=1.0)
    torch.testing.assert_close(whole(noise()), expected, **TINY32)
    assert (halved(noise()) - expected).abs().max() > 0.1
    assert halved.state_dict().keys() == whole.state_dict().keys()


@torch.no_grad()
def test_merged_logits_are_the_maximum_over_the_merged_tokens():
    model = strong(tiny())
    with attach(model, "tome", "r=8") as handle:
        logits = model(noise())
        tokens = model.norm(handle.tokens.x)
    assert tokens.shape[1] == 33
    dense = F.linear(tokens[:, 1:], model.aux_head.weight, model.aux_head.bias)
    head = F.linear(tokens[:, 0], model.head.weight, model.head.bias)
    torch.testing.assert_close(logits, head + 0.5 * dense.max(dim=1).values)


@torch.no_grad()
def test_padding_has_no_say_in_the_maximum():
    class KeepSome(Reducer):
        """Sample i keeps 20 + i patches; its last places are padding that holds other samples' favourites."""

        def after_attention(self, tokens, signals, amount):
            index = torch.arange(1, 31).expand(len(tokens.x), -1)
            valid = torch.arange(30) < 20 + torch.arange(len(tokens.x))[:, None]
            return tokens.keep(index, valid=valid)

        def leaving(self, count, amount):
            return 31

    model = strong(tiny(depth=1))
    with attach(model, KeepSome(), "r=34") as handle:
        logits = model(noise())
        features = model.norm(handle.tokens.x)
    for row, logit in enumerate(logits):
        there = model.aux_head(features[row, 1 : 21 + row]).max(dim=0).values
        torch.testing.assert_close(logit, model.head(features[row, 0]) + 0.5 * there)
    assert (model.aux_head(features[:, 21:]).amax(1) > model.aux_head(features[:, 1:21]).amax(1)).any()


@torch.no_grad()
def test_tokens_that_soft_merging_has_emptied_have_no_say_in_the_maximum():
    class Empty(Reducer):
        """Leaves every token where it is, the last 40 of them with nothing in them."""

        soft = True

        def after_attention(self, tokens, signals, amount):
            sizes = torch.ones(tokens.x.shape[:2])
            sizes[:, 25:] = 0
            return tokens.soften(tokens.x, sizes, active=25)

    model = strong(tiny(depth=1))
    whole = model(noise())
    with attach(model, Empty(), "r=1") as handle:
        logits = model(noise())
        features = model.norm(handle.tokens.x)
    expected = model.head(features[:, 0]) + 0.5 * model.aux_head(features[:, 1:25]).amax(1)
    torch.testing.assert_close(logits, expected)
    assert not torch.allclose(logits, whole)


@pytest.mark.parametrize(("name", "rate"), [("none", None), ("tome", "r=0"), ("evit", "keep=1")])
@torch.no_grad()
def test_no_reduction_is_the_model_bit_for_bit(name, rate):
    model = strong(tiny())
    whole, features = model(noise()), model.forward_features(noise())
    with attach(model, name, rate):
        assert torch.equal(model(noise()), whole)
        assert torch.equal(model.forward_features(noise()), features)
        assert torch.equal(model.forward_head(features), whole)
    assert type(model) is LVViT
    assert torch.equal(model(noise()), whole)


@pytest.mark.parametrize(("name", "rate"), [("tome", "r=4"), ("evit", "keep=0.7")])
@torch.no_grad()
def test_methods_reduce_it_as_planned_and_the_cost_is_undisputed(name, rate):
    model = strong(tiny())
    whole = model(noise())
    with attach(model, name, rate) as handle:
        logits = model(noise())
        assert handle.token_counts == handle.planned_counts
        assert handle.token_counts[-1] < 65
        report = count_flops(model)
        assert not report.disputed
        assert report.formula == report.total - report.reducer
        assert report.torch == report.total
    assert logits.isfinite().all()
    assert not torch.equal(logits, whole)


def test_gradients_reach_the_stem_both_heads_and_every_block_of_a_reduced_model():
    model = strong(tiny())
    with attach(model, "tome", "r=4"):
        model(noise()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_the_small_model_costs_and_weighs_what_was_published():
    model, info = load_model("lvvit_s", "none")
    report = count_flops(model)
    assert info.kind == "random"
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(26.2e6, rel=0.005)
    assert report.by_part["patch_embed"] == pytest.approx(1.35e9, rel=0.002)
    assert report.by_part["attention"] + report.by_part["mlp"] == pytest.approx(5.12e9, rel=0.002)
    assert report.by_part["head"] == 197 * 384 * 1000
    assert report.total == pytest.approx(6.6e9, rel=0.01)
    assert not report.disputed
    layout = family_of(model).layout(model)
    assert (layout.depth, layout.width, layout.heads, layout.tokens) == (16, 384, 6, 197)
    assert model.blocks[0].attn.qkv.bias is None
    assert model.blocks[0].mlp.fc1.out_features == 3 * 384
    assert model.norm.eps == model.blocks[3].norm2.eps == 1e-5
    assert resolve_model_data_config(model)["crop_pct"] == 0.9


# Names of tensors in the authors' files, of one block and of all that is not in a block.
BLOCK = ("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.proj.weight", "attn.proj.bias", "norm2.weight",
         "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias")  # fmt: skip
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
AUTHORS = {
    "cls_token", "pos_embed", "norm.weight", "norm.bias", "head.weight", "head.bias", "aux_head.weight",
    "aux_head.bias", "patch_embed.proj.weight", "patch_embed.proj.bias",
    *(f"patch_embed.conv{i}.weight" for i in (1, 2, 3)),
    *(f"patch_embed.bn{i}.{key}" for i in (1, 2, 3) for key in NORM),
    *(f"blocks.{i}.{key}" for i in range(16) for key in BLOCK),
}  # fmt: skip


def authors_state():
    model, _ = load_model("lvvit_s", "none")
    state = strong(model).state_dict()
    assert state.keys() == AUTHORS
    return state


def test_the_authors_file_loads_whatever_it_is_wrapped_in(tmp_path):
    state = authors_state()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pth.tar")
    for name in ("plain.pth", "wrapped.pth.tar"):
        model, info = load_model("lvvit_s", str(tmp_path / name))
        assert info.kind == "trained"
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_file_with_a_wrong_key_is_refused_in_one_line(tmp_path):
    state = authors_state()
    state["blocks.0.attn.extra"] = state.pop("aux_head.bias")
    torch.save(state, tmp_path / "a.pth")
    expected = r"1 keys missing \(aux_head\.bias\), 1 keys unexpected \(blocks\.0\.attn\.extra\)"
    with pytest.raises(RequestError, match=expected) as caught:
        load_model("lvvit_s", str(tmp_path / "a.pth"))
    assert "\n" not in str(caught.value)


def test_positions_are_resampled_for_another_image_size(tmp_path):
    torch.save(authors_state(), tmp_path / "a.pth")
    model, info = load_model("lvvit_s", str(tmp_path / "a.pth"), image_size=64)
    assert "resampled from 197 to 17" in info.source
    assert model(noise(side=64)).shape == (2, 1000)
    with pytest.raises(AssertionError, match=r"32.*doesn't match model"):
        model(noise(side=32))


def test_weights_that_cannot_be_downloaded_are_said_to_be_a_file_of_the_authors():
    with pytest.raises(RequestError, match=r"github\.com/zihangJiang/TokenLabeling") as caught:
        load_model("lvvit_s")
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="no embedded weights; use checkpoint none or a file"):
        load_model("lvvit_s", "embedded")
    with pytest.raises(RequestError, match="did you mean lvvit_s"):
        load_model("lvit_s", "none")


def test_it_is_listed_beside_the_models_of_timm():
    assert ("lvvit_s", "") in list_models()
    assert list_models("lvvit*") == [("lvvit_s", "")]


@torch.no_grad()
def test_another_number_of_classes_gives_both_heads_that_many():
    model = tiny()
    model.reset_classifier(7)
    assert model.eval()(noise()).shape == (2, 7)
    assert load_model("lvvit_s", "none", num_classes=5)[0].aux_head.out_features == 5
    headless = tiny(num_classes=0).eval()
    assert headless(noise()).shape == (2, 32)
    assert pickle.loads(pickle.dumps(headless)).patch_embed.img_size == (32, 32)
