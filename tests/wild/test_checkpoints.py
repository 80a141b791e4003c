"""Checkpoints from elsewhere give the numbers of the model that they were saved from, or are refused in one line."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from suite.api import run_sweep
from suite.cli.app import main
from suite.errors import RequestError
from suite.models.load import load_model
from suite.models.registry import CLASSIFIER, MODELS, ModelEntry
from tests.wild.checkpoints import (
    HARMFUL,
    HARMLESS,
    MODEL,
    PLACES,
    SEVERAL,
    SIDE,
    Opens,
    deit_original,
    make_model,
    prefixed,
    zip_of,
)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return make_model()


@pytest.fixture(scope="module")
def averaged() -> nn.Module:
    return make_model(seed=2)


def images(side: int = SIDE) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def gives_the_logits_of(model: nn.Module, file: Path | str) -> bool:
    """Bit for bit."""
    return torch.equal(load_model(MODEL, str(file), image_size=SIDE)[0](images()), model(images()))


def refusal(file: Path | str, model: str = MODEL, **options) -> str:
    with pytest.raises(RequestError) as caught:
        load_model(model, str(file), **{"image_size": SIDE, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what stands beside the weights


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_values_beside_the_weights_are_no_obstacle(tmp_path, trained, kind):
    torch.save(
        {"model": trained.state_dict(), "beside": HARMLESS[kind], "within": [HARMLESS[kind]]}, tmp_path / "a.pth"
    )
    assert gives_the_logits_of(trained, tmp_path / "a.pth")


def test_a_file_of_deits_training_script_is_read(tmp_path):
    path = deit_original(tmp_path)
    saved = torch.load(path, weights_only=False)["model"]
    own = load_model(MODEL, str(path), image_size=SIDE)[0].state_dict()
    assert own.keys() == saved.keys()
    assert all(torch.equal(own[key], saved[key]) for key in own)


@pytest.mark.parametrize("kind", HARMFUL)
def test_a_harmful_pickle_runs_nothing_wherever_it_stands(tmp_path, trained, kind):
    name, write = HARMFUL[kind]
    ran = tmp_path / "ran"
    write(tmp_path / name, trained.state_dict(), ran)
    message = refusal(tmp_path / name)
    assert not ran.exists()
    assert str(tmp_path) in message
    pickle.loads(pickle.dumps(Opens(ran)))  # the payload does work
    assert ran.exists()


def test_what_is_refused_is_named_with_the_way_to_convert_it(tmp_path, trained):
    torch.save({"model": trained.state_dict(), "config": pytest.Config}, tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "_pytest.config.Config" in message
    assert "weights_only=False" in message
    torch.save(trained, tmp_path / "whole.pth")
    assert "timm.models.vision_transformer.VisionTransformer" in refusal(tmp_path / "whole.pth")
    torch.save(trained.state_dict(), tmp_path / "later.pth", pickle_protocol=4)
    assert "protocol" in refusal(tmp_path / "later.pth")
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "script.pt")
    assert "TorchScript" in refusal(tmp_path / "script.pt")
    assert "it asks for print" in refusal(zip_of(tmp_path / "builtin.pth", pickle.dumps([print], 2)))


def test_stand_ins_are_gone_once_a_file_is_read(tmp_path, trained):
    before = torch.serialization.get_safe_globals()
    torch.save({"model": trained.state_dict(), "args": HARMLESS["argparse.Namespace"]}, tmp_path / "a.pth")
    load_model(MODEL, str(tmp_path / "a.pth"), image_size=SIDE)
    assert torch.serialization.get_safe_globals() == before


# ---- where the weights stand


@pytest.mark.parametrize("place", PLACES)
def test_weights_are_found_under_whatever_leads_to_them(tmp_path, trained, place):
    torch.save(PLACES[place](trained.state_dict()), tmp_path / "a.pth")
    assert gives_the_logits_of(trained, tmp_path / "a.pth")


def test_what_was_stripped_and_what_was_left_out_is_said(tmp_path, trained):
    torch.save(PLACES["Lightning"](trained.state_dict()), tmp_path / "a.ckpt")
    source = load_model(MODEL, str(tmp_path / "a.ckpt"), image_size=SIDE)[1].source
    assert source.startswith(f"{tmp_path / 'a.ckpt'}[state_dict]")
    assert "prefix 'model.' stripped" in source
    assert "1 tensors outside the model left out (criterion.weight)" in source


@pytest.mark.parametrize("kind", SEVERAL)
def test_of_several_models_averaged_weights_are_taken_and_the_others_are_to_be_had(tmp_path, trained, averaged, kind):
    build, of_averaged, of_plain = SEVERAL[kind]
    torch.save(build(trained.state_dict(), averaged.state_dict()), tmp_path / "a.pth")
    assert gives_the_logits_of(averaged, tmp_path / "a.pth")
    assert gives_the_logits_of(averaged, f"{tmp_path / 'a.pth'}::{of_averaged}")
    assert gives_the_logits_of(trained, f"{tmp_path / 'a.pth'}::{of_plain}")
    infos = [
        load_model(MODEL, f"{tmp_path / 'a.pth'}{choice}", image_size=SIDE)[1]
        for choice in ("", f"::{of_averaged}", f"::{of_plain}")
    ]
    assert of_averaged in infos[0].remark
    assert of_plain in infos[0].remark
    assert "::" in infos[0].remark
    assert not infos[1].remark
    assert infos[0].sha256 == infos[1].sha256 != infos[2].sha256  # other weights are another run


def test_a_model_that_does_not_fit_is_no_choice(tmp_path, trained, averaged):
    other = {key: value for key, value in averaged.state_dict().items() if not key.startswith("blocks.5.")}
    torch.save({"model": trained.state_dict(), "model_ema": other}, tmp_path / "a.pth")
    assert gives_the_logits_of(trained, tmp_path / "a.pth")
    assert "12 keys missing (blocks.5." in refusal(f"{tmp_path / 'a.pth'}::model_ema")
    message = refusal(f"{tmp_path / 'a.pth'}::best")
    assert "'best'" in message
    assert "model, model_ema" in message


def test_a_file_whose_name_has_colons_is_a_file(tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "a::b.pth")
    assert gives_the_logits_of(trained, tmp_path / "a::b.pth")


def test_plan_and_run_say_what_was_loaded_and_how_it_was_adapted(tmp_path, trained, averaged, photos, capsys, tiny_run):
    file = tmp_path / "a.pth"
    torch.save({"model": prefixed(trained.state_dict(), "module."), "model_ema": averaged.state_dict()}, file)
    data = ["--task", "imagenet", "--data", str(photos), "--image-size", "48", "--device", "cpu"]
    flags = [
        *data,
        "--checkpoint",
        str(file),
        "--model",
        MODEL,
        "--reducers",
        "tome",
        "--rates",
        "r=1",
        "--out",
        str(tmp_path / "b"),
    ]
    with pytest.raises(SystemExit) as done:
        main(["plan", *flags])
    assert done.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"weights: {file}[model_ema], position embeddings resampled from 17 to 10") == 1
    assert said.count("averaged weights first") == 1
    results = run_sweep({**tiny_run, "checkpoint": f"{file}::model", "reducers": ["tome"]})
    stored = [json.loads(path.read_text())["weights"] for path in Path(results.out).rglob("cell.json")]
    assert stored
    assert all("prefix 'module.' stripped" in one for one in stored)


def test_segmenters_are_found_and_chosen_alike(tmp_path):
    name = "scenes_segmenter"
    plain, averaged = (noisy(load_model(name, "none")[0], seed) for seed in (1, 2))
    state = {
        "model": prefixed(plain.state_dict(), "module.model."),
        "model_ema": prefixed(averaged.state_dict(), "module.model."),
    }
    torch.save({**state, "args": HARMLESS["argparse.Namespace"]}, tmp_path / "a.pth")
    loaded, info = load_model(name, str(tmp_path / "a.pth"))
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert "[model.module.model, not model_ema]" in info.source
    digest = info.sha256
    loaded, info = load_model(name, f"{tmp_path / 'a.pth'}::model_ema")
    assert info.sha256 != digest
    assert all(torch.equal(value, averaged.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert "not" not in info.source.removeprefix(str(tmp_path))


# ---- what differs from the model


def test_another_number_of_classes_takes_the_place_of_the_models_own(tmp_path):
    small = make_model(num_classes=7)
    torch.save(small.state_dict(), tmp_path / "a.pth")
    model, info = load_model(MODEL, str(tmp_path / "a.pth"), image_size=SIDE)
    assert model.num_classes == 7
    assert torch.equal(model(images()), small(images()))
    assert "7 classes instead of 1000" in info.source
    assert "'head.weight' has shape (7, 64), the model needs (9, 64)" in refusal(tmp_path / "a.pth", num_classes=9)


def test_the_callers_random_state_is_left_alone(tmp_path):
    torch.save(make_model(num_classes=7).state_dict(), tmp_path / "a.pth")
    before = torch.get_rng_state()
    load_model(MODEL, str(tmp_path / "a.pth"), image_size=SIDE)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_for_patches_of_another_size_are_refused_with_both_sizes(tmp_path):
    torch.save(make_model(patch_size=8).state_dict(), tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "patches of 8 x 8 pixels" in message
    assert "16 x 16" in message


def test_a_file_without_a_classifier_is_refused_as_what_it_is(tmp_path, trained):
    body = {key: value for key, value in trained.state_dict().items() if not key.startswith("head.")}
    torch.save({"model": prefixed(body, "module.encoder.")}, tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "2 keys missing (head.weight, head.bias)" in message
    assert "without a classifier" in message


def test_the_first_three_misfits_of_both_sides_are_named(tmp_path, trained):
    state = trained.state_dict()
    renamed = {
        (k.replace("mlp.fc1", "ffn.in") if "blocks.0." in k or "blocks.1." in k else k): v for k, v in state.items()
    }
    torch.save(renamed, tmp_path / "a.pth")
    message = refusal(tmp_path / "a.pth")
    assert "4 keys missing (blocks.0.mlp.fc1.weight, blocks.0.mlp.fc1.bias, blocks.1.mlp.fc1.weight, ...)" in message
    assert "4 keys unexpected (blocks.0.ffn.in.weight, blocks.0.ffn.in.bias, blocks.1.ffn.in.weight, ...)" in message


SPLITS = [("q", "k", "v"), ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("to_q", "to_k", "to_v")]


@pytest.mark.parametrize("names", SPLITS)
def test_split_queries_keys_and_values_are_joined_and_that_is_said(tmp_path, trained, names):
    split: dict[str, Tensor] = {}
    for key, value in trained.state_dict().items():
        if ".qkv." in key:
            split |= {key.replace("qkv", name): part.clone() for name, part in zip(names, value.chunk(3))}
        else:
            split[key] = value
    torch.save(prefixed(split, "module."), tmp_path / "a.pth")
    assert gives_the_logits_of(trained, tmp_path / "a.pth")
    assert "parts (q, k, v)" in load_model(MODEL, str(tmp_path / "a.pth"), image_size=SIDE)[1].source


def test_projections_as_torchs_attention_has_them_are_read(tmp_path, trained):
    state = {
        key.replace("qkv.", "in_proj_").replace("attn.proj.", "attn.out_proj."): value
        for key, value in trained.state_dict().items()
    }
    torch.save(state, tmp_path / "a.pth")
    assert gives_the_logits_of(trained, tmp_path / "a.pth")


def test_queries_keys_and_values_without_a_bias_have_one_of_zeros(tmp_path):
    bare = make_model(qkv_bias=False)
    torch.save(bare.state_dict(), tmp_path / "a.pth")
    model, info = load_model(MODEL, str(tmp_path / "a.pth"), image_size=SIDE)
    torch.testing.assert_close(model(images()), bare(images()))
    assert "no bias of q, k and v: zeros" in info.source


def test_keys_without_a_bias_have_one_of_zeros(tmp_path, trained):
    """BEiT's and EVA's files hold q_bias and v_bias."""
    state, without = trained.state_dict(), {}
    for key, value in state.items():
        if key.endswith("qkv.bias"):
            q, _, v = value.chunk(3)
            without |= {key.replace("qkv.bias", "q_bias"): q, key.replace("qkv.bias", "v_bias"): v}
        else:
            without[key] = value
    torch.save(without, tmp_path / "a.pth")
    loaded = load_model(MODEL, str(tmp_path / "a.pth"), image_size=SIDE)[0].state_dict()
    q, k, v = loaded["blocks.3.attn.qkv.bias"].chunk(3)
    expected = state["blocks.3.attn.qkv.bias"].chunk(3)
    assert torch.equal(q, expected[0])
    assert torch.equal(v, expected[2])
    assert not k.any()


def test_a_bias_that_only_some_blocks_lack_is_a_fault(tmp_path, trained):
    state = {key: value for key, value in trained.state_dict().items() if key != "blocks.2.attn.qkv.bias"}
    torch.save(state, tmp_path / "a.pth")
    assert "1 keys missing (blocks.2.attn.qkv.bias)" in refusal(tmp_path / "a.pth")


def test_an_adapter_that_is_not_merged_is_refused(tmp_path, trained):
    state = {key.replace("qkv.", "qkv.base_layer."): value for key, value in trained.state_dict().items()}
    state["blocks.0.attn.qkv.lora_A.default.weight"] = torch.ones(4, 64)
    torch.save(prefixed(state, "base_model.model."), tmp_path / "a.pth")
    assert "blocks.0.attn.qkv.base_layer.weight" in refusal(tmp_path / "a.pth")


def test_integers_are_no_weights(tmp_path, trained):
    state = {k: (v.mul(100).to(torch.int8) if k.endswith("fc1.weight") else v) for k, v in trained.state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    assert "torch.int8" in refusal(tmp_path / "a.pth")


# ---- several files


def shards(folder: Path, model: nn.Module) -> Path:
    """Two files and their index, as transformers and accelerate write large models."""
    state = model.state_dict()
    names = list(state)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    index = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        safetensors.torch.save_file({name: state[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder / "model.safetensors.index.json"


def test_parts_with_an_index_are_read_by_the_index_a_part_or_the_folder(tmp_path, trained):
    index = shards(tmp_path, trained)
    for file in (index, tmp_path / "model-00002-of-00002.safetensors", tmp_path):
        assert gives_the_logits_of(trained, file)
    digest = load_model(MODEL, str(index), image_size=SIDE)[1].sha256
    part = tmp_path / "model-00002-of-00002.safetensors"
    safetensors.torch.save_file({k: v + 1 for k, v in safetensors.torch.load_file(part).items()}, part)
    assert load_model(MODEL, str(index), image_size=SIDE)[1].sha256 != digest


def test_a_part_that_is_missing_and_a_name_that_leads_away_are_refused(tmp_path, trained):
    index = shards(tmp_path, trained)
    part = tmp_path / "model-00002-of-00002.safetensors"
    away = part.rename(tmp_path / "elsewhere.safetensors")
    assert "1 of 2 files" in refusal(index)
    away.rename(part)
    index.write_text(index.read_text().replace("model-00002", "../model-00002"))
    assert "beside it alone" in refusal(index)
    index.unlink()
    assert "does not exist" in refusal(part)
    index.write_text("[]")
    assert "weight_map" in refusal(index)


# ---- other libraries' models


def small(**options) -> ModelEntry:
    shape = {"img_size": 56, "patch_size": 14, "embed_dim": 64, "depth": 3, "num_heads": 2, "mlp_ratio": 3.0}
    build = "timm.models.vision_transformer:VisionTransformer"
    return ModelEntry("small", CLASSIFIER, build, {**shape, "num_classes": 0, **options})


@pytest.fixture
def named_small(monkeypatch):
    def name(**options) -> str:
        monkeypatch.setitem(MODELS, "small", small(**options))
        return "small"

    return name


SHAPE = {"image_size": 56, "patch_size": 14, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}


def noisy(model: nn.Module, seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


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
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    options: dict = {"init_values": 1e-5, "mlp_ratio": 4.0}
    shape = {**SHAPE, "mlp_ratio": 4, "use_swiglu_ffn": kind == "gated"}
    if kind == "registers":
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


def test_the_colours_of_timms_configuration_are_followed(tmp_path, trained):
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "model.safetensors")
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


def test_openais_clip_gives_what_timm_makes_of_it(tmp_path, named_small, trained):
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


def flax_arrays(
    model: VisionTransformer, prefix: str, big_vision: bool, stacked: bool = False
) -> dict[str, np.ndarray]:
    """Random arrays by the names and shapes of big_vision's, or of the older vision_transformer repository's files."""
    rng, width, heads = np.random.default_rng(0), 64, 2
    hidden = model.blocks[0].mlp.fc1.out_features

    def attention(name: str) -> dict[str, tuple[int, ...]]:
        ends = {"kernel": (width, heads, width // heads), "bias": (heads, width // heads)}
        qkv = {f"{name}/{one}/{end}": ends[end] for one in ("query", "key", "value") for end in ends}
        return {**qkv, f"{name}/out/kernel": (heads, width // heads, width), f"{name}/out/bias": (width,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}/scale": (width,), f"{name}/bias": (width,)}

    def mlp(name: str) -> dict[str, tuple[int, ...]]:
        first = {f"{name}/Dense_0/kernel": (width, hidden), f"{name}/Dense_0/bias": (hidden,)}
        return {**first, f"{name}/Dense_1/kernel": (hidden, width), f"{name}/Dense_1/bias": (width,)}

    a, b, c = (0, 0, 1) if big_vision else (1, 3, 2)
    positions = "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding"
    shapes = {"embedding/kernel": (14, 14, 3, width), "embedding/bias": (width,), **norm("Transformer/encoder_norm")}
    shapes[positions] = tuple(model.pos_embed.shape)
    if model.cls_token is not None:
        shapes["cls"] = (1, 1, width)
    if model.attn_pool is not None:
        pool = "MAPHead_0"
        shapes |= {f"{pool}/probe": (1, 1, width), **attention(f"{pool}/MultiHeadDotProductAttention_0")}
        shapes |= {**norm(f"{pool}/LayerNorm_0"), **mlp(f"{pool}/MlpBlock_0")}
    else:
        shapes |= {"head/kernel": (width, 5), "head/bias": (5,)}
    block = {
        **norm("LayerNorm_0"),
        **attention(f"MultiHeadDotProductAttention_{a}"),
        **mlp(f"MlpBlock_{b}"),
        **norm(f"LayerNorm_{c}"),
    }
    for name, shape in block.items():
        if stacked:
            shapes[f"Transformer/encoderblock/{name}"] = (len(model.blocks), *shape)
        else:
            shapes |= {f"Transformer/encoderblock_{i}/{name}": shape for i in range(len(model.blocks))}
    return {prefix + name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


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
