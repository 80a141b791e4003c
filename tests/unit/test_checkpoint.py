"""Loading models: what is accepted, what is refused in one line, and that a weights file never runs code."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from suite.errors import RequestError
from suite.models.load import load_model
from suite.models.registry import MODELS
from suite.models.weights_file import state_dict_sha256

TINY = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return timm.create_model(TINY).state_dict()


def equals(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_in_every_accepted_form_gives_the_same_weights(tmp_path, trained):
    safetensors.torch.save_file(trained, tmp_path / "a.safetensors")
    torch.save(trained, tmp_path / "plain.pth")
    torch.save({"model": trained, "epoch": 3}, tmp_path / "model.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in trained.items()}}, tmp_path / "ddp.bin")
    torch.save({"model_ema": {f"_orig_mod.{k}": v for k, v in trained.items()}}, tmp_path / "compiled.ckpt")
    for name in ("a.safetensors", "plain.pth", "model.pt", "ddp.bin", "compiled.ckpt"):
        model, info = load_model(TINY, str(tmp_path / name))
        assert equals(model, trained), name
        assert not model.training
        assert info.kind == "trained"
        assert info.source.startswith(str(tmp_path / name))
        assert len(info.sha256) == 64
    assert load_model(TINY, str(tmp_path / "model.pt"))[1].source.endswith("model.pt[model]")


def test_half_precision_weights_are_cast_to_float32(tmp_path, trained):
    safetensors.torch.save_file({k: v.half() for k, v in trained.items()}, tmp_path / "a.safetensors")
    model, _ = load_model(TINY, str(tmp_path / "a.safetensors"))
    assert equals(model, {k: v.half().float() for k, v in trained.items()})


def test_position_embeddings_are_resampled_for_another_image_size_and_that_is_said(tmp_path, trained):
    torch.save(trained, tmp_path / "a.pth")
    model, info = load_model(TINY, str(tmp_path / "a.pth"), image_size=96)
    assert model.pos_embed.shape == (1, 37, 192)
    assert "resampled from 197 to 37" in info.source
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, trained):
    ran = tmp_path / "ran"
    torch.save({"model": trained, "hook": Payload(ran)}, tmp_path / "zip.pth")
    torch.save({"model": trained, "hook": Payload(ran)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "raw.bin").write_bytes(pickle.dumps(Payload(ran)))
    (tmp_path / "renamed.safetensors").write_bytes(pickle.dumps(Payload(ran)))
    for name in ("zip.pth", "old.pth", "raw.bin", "renamed.safetensors"):
        with pytest.raises(RequestError, match=name) as caught:
            load_model(TINY, str(tmp_path / name))
        assert "\n" not in str(caught.value)
        assert not ran.exists(), name
    pickle.loads(pickle.dumps(Payload(ran)))  # the payload does work
    assert ran.exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.pth", b""), ("a.pth", b"hello"), ("a.safetensors", b""), ("a.safetensors", b"\xff" * 64), ("a.npz", b"x")],
)
def test_a_file_that_holds_no_weights_is_one_clear_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RequestError, match=name.replace(".", r"\.")) as caught:
        load_model(TINY, str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_refused(tmp_path, trained):
    torch.save(trained, tmp_path / "a.pth")
    safetensors.torch.save_file(trained, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(RequestError, match="complete"):
            load_model(TINY, str(tmp_path / name))


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    with pytest.raises(RequestError, match="does not exist"):
        load_model(TINY, str(tmp_path / "none.pth"))
    with pytest.raises(RequestError, match="is not a file"):
        load_model(TINY, str(tmp_path))


def test_weights_that_do_not_fit_name_the_key_and_both_shapes(tmp_path, trained):
    torch.save(trained, tmp_path / "a.pth")
    with pytest.raises(RequestError, match=r"'cls_token' has shape \(1, 1, 192\).*needs \(1, 1, 384\)"):
        load_model("deit_small_patch16_224", str(tmp_path / "a.pth"))
    with pytest.raises(RequestError, match=r"'head.weight' has shape \(1000, 192\).*needs \(7, 192\)"):
        load_model(TINY, str(tmp_path / "a.pth"), num_classes=7)
    with pytest.raises(RequestError, match=r"3 keys missing \(dist_token"):
        load_model("deit_tiny_distilled_patch16_224", str(tmp_path / "a.pth"))


def test_weights_of_another_patch_size_are_not_resampled_in_silence(tmp_path):
    torch.save(timm.create_model("vit_tiny_patch16_224", patch_size=32).state_dict(), tmp_path / "a.pth")
    with pytest.raises(RequestError, match=r"patch_embed\.proj\.weight|pos_embed"):
        load_model("vit_tiny_patch16_224", str(tmp_path / "a.pth"))


def test_missing_and_unexpected_keys_are_counted_and_named(tmp_path, trained):
    state = {key: value for key, value in trained.items() if not key.startswith("blocks.0.")}
    torch.save({**state, "extra.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(RequestError, match=r"12 keys missing \(blocks\.0\.norm1\.weight, .*1 keys unexpected \(extra"):
        load_model(TINY, str(tmp_path / "a.pth"))


@pytest.mark.slow
def test_random_weights_are_the_same_in_two_processes_and_leave_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model, info = load_model(TINY, "none")
    assert torch.equal(torch.get_rng_state(), before)
    assert info.kind == "random"
    assert info.sha256 == state_dict_sha256(model.state_dict())
    code = f"from suite.models.load import load_model; print(load_model({TINY!r}, 'none')[1].sha256)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == info.sha256


def test_a_tag_selects_the_same_architecture_and_a_wrong_one_lists_the_tags():
    assert load_model(f"{TINY}.fb_in1k", "none")[1] == load_model(TINY, "none")[1]
    with pytest.raises(RequestError, match=r"no pretrained tag 'nope'; its tags are fb_in1k"):
        load_model(f"{TINY}.nope", "none")


def test_an_unknown_model_is_answered_with_the_closest_names():
    with pytest.raises(RequestError, match="did you mean deit_tiny_patch16_224"):
        load_model("deit_tiny_patch16_22", "none")
    with pytest.raises(RequestError, match="scenes_vit"):
        load_model("scene_vit", "none")


def test_an_image_size_that_does_not_divide_into_patches_is_refused():
    with pytest.raises(RequestError, match="225 is not a multiple"):
        load_model(TINY, "none", image_size=225)


def test_without_a_network_pretrained_weights_are_one_line_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RequestError, match=r"no pretrained weights for .* or none for random weights") as caught:
        load_model(TINY, "pretrained")
    assert "\n" not in str(caught.value)


def test_a_pretrained_model_does_not_get_a_random_head():
    with pytest.raises(RequestError, match="1000 classes, not 7"):
        load_model(TINY, "pretrained", num_classes=7)


def test_embedded_weights_are_the_default_of_an_embedded_model(monkeypatch, tmp_path):
    name = "scenes_vit"
    built, _ = load_model(name, "none")
    half = {key: value.half() for key, value in built.state_dict().items()}
    safetensors.torch.save_file(half, tmp_path / "w.safetensors")
    monkeypatch.setitem(MODELS, name, replace(MODELS[name], weights=tmp_path / "w.safetensors"))
    model, info = load_model(name)
    assert equals(model, {key: value.float() for key, value in half.items()})
    assert (info.kind, info.source) == ("trained", f"embedded:{name}")
    with pytest.raises(RequestError, match="embedded or none"):
        load_model(name, "pretrained")
    with pytest.raises(
        RequestError, match=r"no embedded weights; use checkpoint pretrained, none or a file \(embedded: "
    ):
        load_model(TINY, "embedded")
