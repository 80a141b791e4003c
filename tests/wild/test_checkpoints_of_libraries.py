"""Checkpoints of other libraries' models give the numbers that these give."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from timm.layers import SwiGLUPacked
from torch import Tensor, nn

from suite.models.load import load_model
from suite.models.registry import MODELS, ModelEntry
from tests.wild.checkpoints import MODEL, SIDE, flax_arrays, images, make_model, noisy, prefixed, refusal, small


@pytest.fixture
def named_small(monkeypatch):
    def name(**options) -> str:
        monkeypatch.setitem(MODELS, "small", small(**options))
        return "small"

    return name


SHAPE = {"image_size": 56, "patch_size": 14, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}


def assert_same(model: nn.Module, x: Tensor, expected: Tensor) -> None:
    """The sums of attention and norms are taken in another order."""
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["folder", "parts", "state dict"])
def test_transformers_vit_gives_its_own_logits(tmp_path, form, named_small):
    from transformers import ViTConfig, ViTForImageClassification

    vit = noisy(ViTForImageClassification(ViTConfig(**SHAPE, intermediate_size=192, num_labels=5, layer_norm_eps=1e-6)))
    if form == "state dict":
        file = tmp_path / "pytorch_model.bin"
        torch.save(vit.state_dict(), file)
    else:
        file = tmp_path
        vit.save_pretrained(tmp_path, max_shard_size="100KB" if form == "parts" else "1GB")
    model, info = load_model(named_small(), str(file))
    assert_same(model, images(56), vit(images(56)).logits)
    assert "names of transformers" in info.source


def test_transformers_distilled_deit_gives_its_own_logits(tmp_path, monkeypatch):
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    config = DeiTConfig(**SHAPE, intermediate_size=192, num_labels=5, layer_norm_eps=1e-6)
    deit = noisy(DeiTForImageClassificationWithTeacher(config))
    deit.save_pretrained(tmp_path)
    entry = replace(small(num_classes=9), build="timm.models.deit:VisionTransformerDistilled")
    monkeypatch.setitem(MODELS, "small", entry)
    assert_same(load_model("small", str(tmp_path))[0], images(56), deit(images(56)).logits)


@pytest.mark.parametrize("kind", ["plain", "registers", "gated"])
def test_transformers_dinov2_gives_its_own_features(tmp_path, kind, named_small):
    from transformers import Dinov2Config, Dinov2Model

    options: dict = {"init_values": 1e-5, "mlp_ratio": 4.0}
    shape = {**SHAPE, "mlp_ratio": 4, "use_swiglu_ffn": kind == "gated"}
    if kind == "registers":
        try:
            from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel
        except ImportError:
            pytest.skip("this transformers has no DINOv2 with registers")
        dino = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**shape, num_register_tokens=4))
        options |= {"reg_tokens": 4, "no_embed_class": True}
    else:
        dino = Dinov2Model(Dinov2Config(**shape))
    if kind == "gated":
        options |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 5.5}
    noisy(dino).save_pretrained(tmp_path)
    model, _ = load_model(named_small(**options), str(tmp_path))
    assert_same(model, images(56), dino(images(56)).last_hidden_state[:, 0])


def test_a_classifier_on_more_than_the_class_token_is_refused(tmp_path, named_small):
    from transformers import Dinov2Config, Dinov2ForImageClassification

    Dinov2ForImageClassification(Dinov2Config(**SHAPE, num_labels=5)).save_pretrained(tmp_path)
    message = refusal(tmp_path, named_small(init_values=1e-5, mlp_ratio=4.0, num_classes=5), image_size=56)
    assert "'head.weight' has shape (5, 128), the model needs (5, 64)" in message
    assert "beside the mean of the patches" in message


SIGLIP = {"class_token": False, "global_pool": "map"}


@pytest.mark.parametrize("whole", [False, True])
def test_transformers_siglip_gives_its_own_features(tmp_path, whole, named_small):
    from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

    vision = {**SHAPE, "intermediate_size": 192, "hidden_act": "gelu"}
    if whole:
        text = {
            **{k: v for k, v in SHAPE.items() if "size" not in k},
            "hidden_size": 64,
            "intermediate_size": 192,
            "vocab_size": 9,
        }
        made = noisy(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)))
        siglip = made.vision_model
    else:
        made = siglip = noisy(SiglipVisionModel(SiglipVisionConfig(**vision)))
    made.save_pretrained(tmp_path)
    model, info = load_model(named_small(**SIGLIP), str(tmp_path))
    assert_same(model, images(56), siglip(images(56)).pooler_output)
    assert ("outside the model" in info.source) == whole


def test_transformers_siglip_classifier_reads_the_mean_of_the_patches(tmp_path, named_small):
    from transformers import SiglipConfig, SiglipForImageClassification

    vision = {**SHAPE, "intermediate_size": 192, "hidden_act": "gelu"}
    made = noisy(SiglipForImageClassification(SiglipConfig(vision_config=vision, num_labels=5)))
    made.save_pretrained(tmp_path)
    model, _ = load_model(named_small(class_token=False, global_pool="avg", fc_norm=False), str(tmp_path))
    assert_same(model, images(56), made(images(56)).logits)
    assert "attn_pool.latent" in refusal(tmp_path, named_small(**SIGLIP), image_size=56)


def test_torchvisions_vit_gives_its_own_logits(tmp_path, named_small):
    from torchvision.models import VisionTransformer as TorchvisionViT

    vit = noisy(TorchvisionViT(56, 14, 3, 2, 64, 192, num_classes=5))
    torch.save({"model": prefixed(vit.state_dict(), "module.")}, tmp_path / "a.pth")
    assert_same(load_model(named_small(), str(tmp_path / "a.pth"))[0], images(56), vit(images(56)))


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh"])
def test_what_transformers_configuration_says_is_followed(tmp_path, named_small, activation):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    vision = {**SHAPE, "intermediate_size": 192, "hidden_act": activation, "layer_norm_eps": 1e-2}
    siglip = noisy(SiglipVisionModel(SiglipVisionConfig(**vision)))
    siglip.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 0.5]}')
    model, info = load_model(named_small(**SIGLIP), str(tmp_path))
    assert_same(model, images(56), siglip(images(56)).pooler_output)
    assert model.pretrained_cfg["std"] == (0.25, 0.5, 0.5)
    assert "LayerNorm epsilon 0.01 by config.json" in info.source
    assert ("activation gelu_pytorch_tanh by config.json" in info.source) == (activation != "gelu")
    assert "deviation (0.25, 0.5, 0.5) by preprocessor_config.json" in info.source
    (tmp_path / "config.json").unlink()
    assert load_model("small", str(tmp_path))[1].sha256 != info.sha256


def test_a_configuration_with_other_heads_is_refused(tmp_path, named_small):
    """Tensors of one shape can be cut into heads in many ways."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(**{**SHAPE, "num_attention_heads": 4}, intermediate_size=192, num_labels=5)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    assert "4 attention heads, not 2" in refusal(tmp_path, named_small(), image_size=56)
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}')
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert "config.json" in refusal(tmp_path, "small", image_size=56)
    assert not (tmp_path / "ran").exists()


def test_the_colours_of_timms_configuration_are_followed(tmp_path):
    safetensors.torch.save_file(make_model().state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": MODEL, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, info = load_model(MODEL, str(tmp_path), image_size=SIDE)
    assert model.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    assert "images of mean (0.1, 0.2, 0.3)" in info.source


@pytest.mark.parametrize(
    ("saved", "asked", "said"),
    [
        ({"build": "timm.models.deit:VisionTransformerDistilled"}, {}, "name a distilled model"),
        ({}, {"build": "timm.models.deit:VisionTransformerDistilled"}, "3 keys missing (dist_token"),
        ({"shape": {"global_pool": "avg"}}, {}, "reads the mean of the patches"),
        ({"shape": {"reg_tokens": 4}}, {}, "it has registers"),
        ({}, {"shape": {"no_embed_class": True}}, "pos_embed"),
        ({}, {"shape": {"class_token": False, "global_pool": "avg"}}, "cls_token"),
    ],
)
def test_a_model_of_another_kind_is_named(tmp_path, monkeypatch, saved, asked, said):
    def entry(build="", shape=None) -> ModelEntry:
        made = small(num_classes=5, **(shape or {}))
        return replace(made, build=build or made.build)

    torch.save({"model": entry(**saved).make().state_dict()}, tmp_path / "a.pth")
    monkeypatch.setitem(MODELS, "small", entry(**asked))
    assert said in refusal(tmp_path / "a.pth", "small", image_size=56)


def test_openais_clip_gives_what_timm_makes_of_it(tmp_path, named_small):
    """Its files hold both towers; the image tower's names begin with 'visual.'."""
    name = named_small(pre_norm=True, num_classes=16)
    model = MODELS[name].make().eval()
    swaps = [("patch_embed.proj", "conv1"), ("blocks.", "transformer.resblocks."), ("norm_pre", "ln_pre"),
             ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("attn.qkv.", "attn.in_proj_"),
             ("attn.proj.", "attn.out_proj."), ("norm1", "ln_1"), ("norm2", "ln_2")]  # fmt: skip
    state = {"text_projection": torch.ones(8, 16), "logit_scale": torch.ones([])}
    for key, value in noisy(model).state_dict().items():
        for ours, theirs in swaps:
            key = key.replace(ours, theirs)
        if key in ("cls_token", "pos_embed"):
            state["visual." + {"cls_token": "class_embedding", "pos_embed": "positional_embedding"}[key]] = (
                value.squeeze()
            )
        elif key == "head.weight":
            state["visual.proj"] = value.T
        elif key != "head.bias":
            state["visual." + re.sub("^norm", "ln_post", key)] = value
    with torch.no_grad():
        model.head.bias.zero_()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    assert torch.equal(load_model(name, str(tmp_path / "a.pth"))[0](images(56)), model(images(56)))


def test_open_clips_image_tower_of_timms_is_read_with_its_projection(tmp_path, named_small):
    name = named_small(num_classes=16)
    model = noisy(MODELS[name].make())
    with torch.no_grad():
        model.head.bias.zero_()
    state = {f"visual.trunk.{k}": v for k, v in model.state_dict().items() if not k.startswith("head.")}
    state |= {"visual.head.proj.weight": model.head.weight, "text.token_embedding.weight": torch.ones(9, 8)}
    torch.save(
        {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, tmp_path / "a.pt"
    )
    loaded, info = load_model(name, str(tmp_path / "a.pt"))
    assert torch.equal(loaded(images(56)), model(images(56)))
    assert "the image tower alone" in info.source


@pytest.mark.parametrize(
    ("prefix", "big_vision", "stacked", "pooled"),
    [
        ("", False, False, False),
        ("opt/target/", False, False, False),
        ("params/", True, False, False),
        ("params/", True, True, False),
        ("params/img/", True, False, True),
    ],
)
def test_googles_archives_give_what_timm_makes_of_them(tmp_path, named_small, prefix, big_vision, stacked, pooled):
    options = SIGLIP if pooled else {"num_classes": 5}
    name = named_small(**options)
    theirs = MODELS["small"].make().eval()
    beside = {"opt/state/step": np.int64(3)} if prefix else {}
    np.savez(tmp_path / "a.npz", **flax_arrays(theirs, prefix, big_vision, stacked), **beside)
    theirs.load_pretrained(str(tmp_path / "a.npz"))
    ours, info = load_model(name, str(tmp_path / "a.npz"))
    own = theirs.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in ours.state_dict().items())
    assert "names of big_vision" in info.source


def test_half_precision_archives_are_read(tmp_path, named_small):
    """NumPy knows no bfloat16: big_vision's files hold two bytes a number, of no type."""
    name = named_small(num_classes=5)
    arrays = flax_arrays(MODELS[name].make(), "params/", True)
    halves = {key: torch.from_numpy(value).bfloat16() for key, value in arrays.items()}
    np.savez(
        tmp_path / "half.npz", **{key: value.view(torch.int16).numpy().view("V2") for key, value in halves.items()}
    )
    np.savez(tmp_path / "whole.npz", **{key: value.float().numpy() for key, value in halves.items()})
    half, whole = (load_model(name, str(tmp_path / f"{kind}.npz"))[0] for kind in ("half", "whole"))
    assert torch.equal(half(images(56)), whole(images(56)))
