"""Checkpoints from elsewhere give the numbers of the model that they were saved from, or are refused in one line."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from suite import attach
from suite.api import run_sweep
from suite.attachment.reducer_weights import read_reducer_weights
from suite.cli.app import main
from suite.errors import RequestError
from suite.models.load import load_model
from suite.models.registry import WEIGHTS
from suite.models.weights_file import file_sha256
from tests.wild.checkpoints import (
    HARMFUL,
    HARMLESS,
    MODEL,
    PLACES,
    SEVERAL,
    SIDE,
    Opens,
    deit_original,
    images,
    make_model,
    noisy,
    prefixed,
    refusal,
    shards,
    zip_of,
)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return make_model()


@pytest.fixture(scope="module")
def averaged() -> nn.Module:
    return make_model(seed=2)


@torch.no_grad()
def gives_the_logits_of(model: nn.Module, file: Path | str) -> bool:
    """Bit for bit."""
    return torch.equal(load_model(MODEL, str(file), image_size=SIDE)[0](images()), model(images()))


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
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "script.pt")
    assert "TorchScript" in refusal(tmp_path / "script.pt")
    assert "it asks for print" in refusal(zip_of(tmp_path / "builtin.pth", pickle.dumps([print], 2)))


def test_stand_ins_are_gone_once_a_file_is_read(tmp_path, trained):
    before = set(torch.serialization.get_safe_globals())
    torch.save({"model": trained.state_dict(), "args": HARMLESS["argparse.Namespace"]}, tmp_path / "a.pth")
    load_model(MODEL, str(tmp_path / "a.pth"), image_size=SIDE)
    assert set(torch.serialization.get_safe_globals()) == before


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


def test_of_two_models_that_are_no_averages_the_first_is_taken_and_that_is_said(tmp_path, trained, averaged):
    torch.save({"best": trained.state_dict(), "last": averaged.state_dict()}, tmp_path / "a.pth")
    assert gives_the_logits_of(trained, tmp_path / "a.pth")
    remark = load_model(MODEL, str(tmp_path / "a.pth"), image_size=SIDE)[1].remark
    assert "best is taken and not last (the first in the file)" in remark


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
    assert all(torch.equal(value, averaged.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert "model_ema.module.model is taken and not model (averaged weights first); choose with" in info.remark
    again = load_model(name, f"{tmp_path / 'a.pth'}::model_ema")[1]
    assert (again.sha256, again.remark) == (info.sha256, "")
    loaded, other = load_model(name, f"{tmp_path / 'a.pth'}::model")
    assert other.sha256 != info.sha256
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_what_a_method_learned_is_read_from_a_training_scripts_file_unless_it_is_there_twice(tmp_path, trained):
    handle = attach(trained, "dtem", "r=1")
    handle.detach()
    learned = dict(handle.reducer.state_dict())
    beside = {"args": HARMLESS["argparse.Namespace"], "best": HARMLESS["numpy float"]}
    torch.save({"model": learned, **beside}, tmp_path / "one.pth")
    read = read_reducer_weights(handle.reducer, tmp_path / "one.pth").own
    assert all(torch.equal(read[key], value) for key, value in learned.items())
    torch.save({"model": learned, "model_ema": learned, **beside}, tmp_path / "two.pth")
    with pytest.raises(RequestError, match=r"there twice, under model_ema and model; choose with two\.pth::NAME"):
        read_reducer_weights(handle.reducer, tmp_path / "two.pth")


def test_of_what_a_method_learned_one_is_chosen_by_its_name(tmp_path, trained, photos, tiny_run):
    handle = attach(trained, "dtem", "r=1")
    handle.detach()
    learned = dict(handle.reducer.state_dict())
    averaged = {key: value + 1 for key, value in learned.items()}
    file = tmp_path / "two.pth"
    torch.save({"model": learned, "model_ema": averaged}, file)
    for name, expected in (("model", learned), ("model_ema", averaged)):
        with attach(trained, "dtem", "r=1", weights=f"{file}::{name}") as handle:
            assert all(torch.equal(value, expected[key]) for key, value in handle.reducer.state_dict().items())
    with pytest.raises(RequestError, match="no state dict under best; it has tensors under model, model_ema"):
        attach(trained, "dtem", "r=1", weights=f"{file}::best")
    with pytest.raises(RequestError, match="do not exist"):
        attach(trained, "dtem", "r=1", weights=f"{tmp_path / 'none.pth'}::model")
    results = run_sweep({**tiny_run, "reducers": [f"dtem@{file}::model"]})
    stored = [json.loads(path.read_text())["reducer_weights"] for path in Path(results.out).rglob("cell.json")]
    assert {"source": f"{file}::model", "sha256": file_sha256(file)} in stored


# ---- what differs from the model


def test_another_number_of_classes_takes_the_place_of_the_models_own(tmp_path):
    small = make_model(num_classes=7)
    torch.save(small.state_dict(), tmp_path / "a.pth")
    model, info = load_model(MODEL, str(tmp_path / "a.pth"), image_size=SIDE)
    assert model.num_classes == 7
    assert torch.equal(model(images()), small(images()))
    assert "7 classes instead of 1000" in info.source
    message = refusal(tmp_path / "a.pth", num_classes=9)
    assert "'head.weight' has shape (7, 64), the model needs (9, 64)" in message
    assert "leave the number of classes out" in message


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


def test_queries_apart_from_keys_and_values_are_joined(tmp_path, trained):
    apart: dict[str, Tensor] = {}
    for key, value in trained.state_dict().items():
        if ".qkv." in key:
            apart |= {key.replace("qkv", "to_q"): value[:64].clone(), key.replace("qkv", "to_kv"): value[64:].clone()}
        else:
            apart[key] = value
    torch.save(apart, tmp_path / "a.pth")
    assert gives_the_logits_of(trained, tmp_path / "a.pth")


def test_a_layer_that_timm_would_leave_out_is_refused(tmp_path, trained):
    """Google's models of 21 thousand classes have one between the class token and the classifier."""
    torch.save({**trained.state_dict(), "pre_logits.fc.weight": torch.eye(64)}, tmp_path / "a.pth")
    assert "pre_logits.fc.weight" in refusal(tmp_path / "a.pth")


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


def test_sparse_and_empty_tensors_are_no_weights(tmp_path, trained):
    weight = trained.state_dict()["head.weight"]
    for odd, said in ((weight.to_sparse(), "sparse_coo"), (weight.to("meta"), "empty")):
        torch.save({**trained.state_dict(), "head.weight": odd}, tmp_path / "a.pth")
        assert said in refusal(tmp_path / "a.pth")


# ---- several files


def test_parts_with_an_index_are_read_by_the_index_a_part_or_the_folder(tmp_path, trained):
    index = shards(tmp_path, trained.state_dict())
    for file in (index, tmp_path / "model-00002-of-00002.safetensors", tmp_path):
        assert gives_the_logits_of(trained, file)
    digest = load_model(MODEL, str(index), image_size=SIDE)[1].sha256
    part = tmp_path / "model-00002-of-00002.safetensors"
    safetensors.torch.save_file({k: v + 1 for k, v in safetensors.torch.load_file(part).items()}, part)
    assert load_model(MODEL, str(index), image_size=SIDE)[1].sha256 != digest


def test_a_part_that_is_missing_and_a_name_that_leads_away_are_refused(tmp_path, trained):
    index = shards(tmp_path, trained.state_dict())
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


def test_a_captioner_in_parts_is_read(tmp_path):
    shutil.copytree(WEIGHTS / "scenes_git", tmp_path / "git")
    whole, info = load_model("git", str(tmp_path / "git"))
    shards(tmp_path / "git", safetensors.torch.load_file(tmp_path / "git" / "model.safetensors"))
    (tmp_path / "git" / "model.safetensors").unlink()
    parts, info_of_parts = load_model("git", str(tmp_path / "git"))
    state = whole.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in parts.state_dict().items())
    assert info_of_parts.sha256 != info.sha256
