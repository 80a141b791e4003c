"""T2T-ViT: its logits are those of its definition, its authors' files load strictly, and any method reduces it."""

import math
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config

from suite import RequestError, attach
from suite.backbones import family_of
from suite.backbones.t2t_vit import T2TViT, TokenPerformer, sinusoids
from suite.measure.flops import count_flops
from suite.models.load import load_model
from suite.models.registry import list_models
from tests.tiers import spread
from tests.tolerances import TINY32

tiny = partial(T2TViT, img_size=64, num_classes=10, embed_dim=32, depth=4, num_heads=2)
STEMS = pytest.mark.parametrize("stem", ["performer", "transformer"])


def strong(model):
    """Weights that differ everywhere, so that nothing can be left out unnoticed; random features stay as drawn."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in sorted(model.state_dict().items()):
            noise = torch.randn(value.shape, generator=generator)
            if "kqv" in name:  # short keys: features are exponentials of minus their squared lengths
                value.copy_(0.02 * noise)
            elif not name.endswith(".w"):
                value.copy_(1 + 0.1 * noise if value.dim() == 1 and "weight" in name else 0.15 * noise)
    return model.eval()


def noise(batch=2, side=64):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


class Definition:
    """Logits straight from the definition of the model and the tensors of its state dict, in float64."""

    def __init__(self, model):
        self.state = {key: value.double() for key, value in model.state_dict().items()}

    def linear(self, x, name):
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-5)

    def mlp(self, x, name, first, second):
        return self.linear(F.gelu(self.linear(x, f"{name}.{first}")), f"{name}.{second}")

    def performer(self, x, name):
        """Linear attention as the whole matrix phi(q) phi(k)', rows normalised."""
        w = self.state[f"{name}.w"]

        def phi(x):
            return torch.stack([(x @ row - (x * x).sum(-1) / 2).exp() / math.sqrt(len(w)) for row in w], dim=-1)

        k, q, v = self.linear(self.norm(x, f"{name}.norm1"), f"{name}.kqv").split(64, dim=-1)
        weights = phi(q) @ phi(k).transpose(1, 2)
        attended = weights @ v / (weights.sum(-1, keepdim=True) + 1e-8)
        x = v + self.linear(attended, f"{name}.proj")
        return x + self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp", 0, 2)

    def transformer(self, x, name):
        q, k, v = self.linear(self.norm(x, f"{name}.norm1"), f"{name}.attn.qkv").split(64, dim=-1)
        weights = (q @ k.transpose(1, 2) / math.sqrt(x.shape[-1])).softmax(-1)
        x = v + self.linear(weights @ v, f"{name}.attn.proj")
        return x + self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp", "fc1", "fc2")

    def stem(self, images, stem):
        attend = getattr(self, stem)
        x = attend(F.unfold(images, 7, stride=4, padding=2).transpose(1, 2), "patch_embed.attention1")
        side = images.shape[-1] // 4
        x = x.transpose(1, 2).reshape(len(x), 64, side, side)
        x = attend(F.unfold(x, 3, stride=2, padding=1).transpose(1, 2), "patch_embed.attention2")
        x = x.transpose(1, 2).reshape(len(x), 64, side // 2, side // 2)
        return self.linear(F.unfold(x, 3, stride=2, padding=1).transpose(1, 2), "patch_embed.project")

    def logits(self, images, stem, scale, heads=2, depth=4):
        x = self.stem(images.double(), stem)
        x = torch.cat([self.state["cls_token"].expand(len(x), -1, -1), x], dim=1) + self.state["pos_embed"]
        batch, count, width = x.shape
        for name in (f"blocks.{index}" for index in range(depth)):
            qkv = self.linear(self.norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
            q, k, v = qkv.view(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            attended = (q @ k.transpose(-1, -2) * scale).softmax(-1) @ v
            x = x + self.linear(attended.transpose(1, 2).reshape(batch, count, width), f"{name}.attn.proj")
            x = x + self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp", "fc1", "fc2")
        return self.linear(self.norm(x, "norm")[:, 0], "head")


@STEMS
@torch.no_grad()
def test_logits_are_those_of_the_definition_with_attention_scaled_by_the_width(stem):
    model = strong(tiny(stem=stem))
    by_width, by_head = (Definition(model).logits(noise(), stem, n**-0.5) for n in (32, 16))
    torch.testing.assert_close(model(noise()).double(), by_width, **TINY32)
    assert (by_width - by_head).abs().max() > 0.01
    usual = tiny(stem=stem, scale=16**-0.5).eval()
    usual.load_state_dict(model.state_dict())
    torch.testing.assert_close(usual(noise()).double(), by_head, **TINY32)


@torch.no_grad()
def test_explicit_attention_has_the_same_scale_as_fused_attention():
    model = strong(tiny())
    fused = model(noise())
    with attach(model, "tome", "r=2"):
        reduced = model(noise())
    for block in model.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(model(noise()), fused, **TINY32)
    with attach(model, "tome", "r=2"):
        torch.testing.assert_close(model(noise()), reduced, **TINY32)


@pytest.mark.slow
@torch.no_grad()
def test_random_features_of_gaussian_lengths_estimate_the_softmax_kernel():
    torch.manual_seed(0)
    q, k = 0.15 * torch.randn(20, 16), 0.15 * torch.randn(20, 16)
    estimates = []
    for _ in range(2000):
        layer = TokenPerformer(4, 16)
        torch.testing.assert_close(layer.w @ layer.w.T, 8 * torch.eye(8), atol=1e-4, rtol=0)
        layer.w *= torch.randn(8, 16).norm(dim=1, keepdim=True) / math.sqrt(8)
        estimates.append(layer.phi(q) @ layer.phi(k).T)
    torch.testing.assert_close(torch.stack(estimates).mean(0), (q @ k.T).exp(), rtol=0.05, atol=0)


@torch.no_grad()
def test_half_precision_keeps_the_random_features_exact():
    model = strong(tiny())
    exact = model.patch_embed(noise())
    with torch.autocast("cpu", torch.bfloat16):
        low = model.patch_embed(noise())
    assert (low.float() - exact).abs().max() < 0.05 * exact.std()
    assert model.bfloat16()(noise().bfloat16()).isfinite().all()


def test_positions_are_fixed_sinusoids():
    model = tiny()
    assert not model.pos_embed.requires_grad
    assert torch.equal(model.pos_embed[0], sinusoids(17, 32)[0])
    for place, channel in ((3, 6), (16, 31), (5, 0)):
        angle = place / 10000 ** (2 * (channel // 2) / 32)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert model.pos_embed[0, place, channel].item() == pytest.approx(expected, abs=1e-6)


@STEMS
@pytest.mark.parametrize(("name", "rate"), [("none", None), ("tome", "r=0"), ("evit", "keep=1")])
@torch.no_grad()
def test_no_reduction_is_the_model_bit_for_bit(stem, name, rate):
    model = strong(tiny(stem=stem))
    whole, features = model(noise()), model.forward_features(noise())
    with attach(model, name, rate):
        assert torch.equal(model(noise()), whole)
        assert torch.equal(model.forward_features(noise()), features)
        assert torch.equal(model.forward_head(features), whole)
    assert type(model) is T2TViT
    assert torch.equal(model(noise()), whole)


@STEMS
@pytest.mark.parametrize(("name", "rate"), [("tome", "r=4"), ("evit", "keep=0.7")])
@torch.no_grad()
def test_methods_reduce_it_as_planned_and_the_cost_is_undisputed(stem, name, rate):
    model = strong(tiny(stem=stem, img_size=96))
    images = noise(side=96)
    whole = model(images)
    with attach(model, name, rate) as handle:
        logits = model(images)
        assert handle.token_counts == handle.planned_counts
        assert handle.token_counts[-1] < 37
        report = count_flops(model)
        assert not report.disputed
        assert report.formula == report.total - report.reducer
        assert report.torch == report.total
        assert report.by_part["patch_embed"] == model.patch_embed.macs((96, 96))
    assert logits.isfinite().all()
    assert not torch.equal(logits, whole)


@STEMS
def test_gradients_reach_all_but_the_positions_of_a_reduced_model(stem):
    model = strong(tiny(stem=stem))
    with attach(model, "tome", "r=2"):
        model(noise()).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name != "pos_embed":
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name
    assert model.pos_embed.grad is None


@pytest.mark.parametrize(("name", "gmacs"), [("t2t_vit_14", 4.8), ("t2t_vit_t_14", 6.1)])
def test_the_models_cost_and_weigh_what_was_published(name, gmacs):
    model, info = load_model(name, "none")
    report = count_flops(model)
    assert info.kind == "random"
    assert sum(value.numel() for value in model.state_dict().values()) == pytest.approx(21.5e6, rel=0.005)
    assert report.total == pytest.approx(gmacs * 1e9, rel=0.01)
    assert not report.disputed
    layout = family_of(model).layout(model)
    assert (layout.depth, layout.width, layout.heads, layout.tokens) == (14, 384, 6, 197)
    assert model.blocks[0].attn.qkv.bias is None
    assert model.blocks[0].mlp.fc1.out_features == 3 * 384
    assert model.norm.eps == model.blocks[3].norm2.eps == 1e-5
    assert model.blocks[0].attn.scale * model.blocks[0].attn.q_norm.factor == pytest.approx(384**-0.5)
    assert resolve_model_data_config(model)["crop_pct"] == 0.9


# Names of tensors in the authors' files: of one block, of one layer of either stem, and the others.
BLOCK = ("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.proj.weight", "attn.proj.bias", "norm2.weight",
         "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias")  # fmt: skip
PERFORMER = ("w", "kqv.weight", "kqv.bias", "proj.weight", "proj.bias", "norm1.weight", "norm1.bias", "norm2.weight",
             "norm2.bias", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")  # fmt: skip
LAYERS = {"t2t_vit_14": PERFORMER, "t2t_vit_t_14": BLOCK}
BODY = {
    "cls_token", "pos_embed", "norm.weight", "norm.bias", "head.weight", "head.bias",
    "tokens_to_token.project.weight", "tokens_to_token.project.bias",
    *(f"blocks.{i}.{key}" for i in range(14) for key in BLOCK),
}  # fmt: skip


def authors_state(name="t2t_vit_14"):
    model, _ = load_model(name, "none")
    state = strong(model).state_dict()
    state = {key.replace("patch_embed.", "tokens_to_token."): value for key, value in state.items()}
    assert state.keys() == BODY | {f"tokens_to_token.attention{i}.{key}" for i in (1, 2) for key in LAYERS[name]}
    return state


@pytest.mark.parametrize("name", spread(2, LAYERS))
def test_the_authors_file_loads_with_its_averaged_weights_first(tmp_path, name):
    state = authors_state(name)
    wrapped = {f"module.{key}": value for key, value in state.items()}
    zeros = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": wrapped}, tmp_path / "wrapped.pth.tar")
    torch.save({"state_dict": zeros, "state_dict_ema": wrapped}, tmp_path / "both.pth.tar")
    for file in ("plain.pth", "wrapped.pth.tar", "both.pth.tar"):
        model, info = load_model(name, str(tmp_path / file))
        own = model.state_dict()
        assert len(own) == len(state)
        assert all(torch.equal(own[key.replace("tokens_to_token", "patch_embed")], state[key]) for key in state)
    assert info.source.endswith("[state_dict_ema], prefix 'module.' stripped")


def test_a_file_with_a_wrong_key_is_refused_in_one_line(tmp_path):
    state = authors_state()
    state["tokens_to_token.attention3.w"] = state.pop("tokens_to_token.attention2.w")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(RequestError, match=r"missing \(patch_embed\.attention2\.w\).*\(patch_embed\.attention3\.w\)"):
        load_model("t2t_vit_14", str(tmp_path / "a.pth"))
    torch.save(authors_state("t2t_vit_t_14"), tmp_path / "t.pth")
    with pytest.raises(RequestError, match="name the model that it was saved from") as caught:
        load_model("t2t_vit_14", str(tmp_path / "t.pth"))
    assert "\n" not in str(caught.value)


def test_positions_are_resampled_for_another_image_size(tmp_path):
    torch.save(authors_state(), tmp_path / "a.pth")
    model, info = load_model("t2t_vit_14", str(tmp_path / "a.pth"), image_size=96)
    assert "resampled from 197 to 37" in info.source
    assert model(noise(side=96)).shape == (2, 1000)
    with pytest.raises(AssertionError, match=r"64.*doesn't match model"):
        model(noise(side=64))


def test_it_is_listed_and_its_limits_are_said_in_one_line():
    assert list_models("t2t*") == [("t2t_vit_14", ""), ("t2t_vit_t_14", "")]
    with pytest.raises(RequestError, match=r"github\.com/yitu-opensource/T2T-ViT"):
        load_model("t2t_vit_14")
    with pytest.raises(RequestError, match="16 pixels, not 8"):
        tiny(patch_size=8)
    assert pickle.loads(pickle.dumps(tiny())).patch_embed.img_size == (64, 64)
