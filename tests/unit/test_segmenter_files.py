"""Segmenters from the authors' files, mmsegmentation's, our own and nothing: all of it fits, or is one clear line."""

import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file
from torch import nn

from suite import RequestError
from suite.backbones.segmenter import build_segmenter
from suite.models.load import check_model_name, load_model
from suite.models.registry import MODELS, default_checkpoint, list_models
from suite.models.scenes_segmenter import build_scenes_segmenter
from tests.segmented import known_as

NAME = "seg_test_mask_16"
SHAPE = {"width": 64, "depth": 2, "heads": 1, "image_size": 64, "num_classes": 5}


@pytest.fixture(autouse=True)
def tiny_name(monkeypatch):
    """A published model that takes no time."""
    known_as(monkeypatch, NAME, **SHAPE)


def tiny(**changes):
    torch.manual_seed(3)
    segmenter = build_segmenter(**{**SHAPE, "patch_size": 16, **changes})
    with torch.no_grad():
        for parameter in segmenter.parameters():  # biases and norms that do something
            parameter.add_(0.1 * torch.randn_like(parameter))
    return segmenter.eval()


def authors_state(segmenter) -> dict[str, torch.Tensor]:
    """By the authors' names: the encoder is called so, and has the head of its pretraining."""
    state = {key.replace("backbone.", "encoder.", 1): value for key, value in segmenter.state_dict().items()}
    return {**state, "encoder.head.weight": torch.zeros(1000, 64), "encoder.head.bias": torch.zeros(1000)}


VARIANT = {
    "dataset_kwargs": {"dataset": "ade20k", "image_size": 64, "crop_size": 64, "normalization": "vit"},
    "inference_kwargs": {"im_size": 64, "window_size": 64, "window_stride": 64},
    "net_kwargs": {
        "backbone": "vit_test_patch16_384",
        "d_model": 64,
        "decoder": {"drop_path_rate": 0.0, "dropout": 0.1, "n_cls": 5, "n_layers": 2, "name": "mask_transformer"},
        "distilled": False,
        "image_size": [64, 64],
        "n_cls": 5,
        "n_heads": 1,
        "n_layers": 2,
        "normalization": "vit",
        "patch_size": 16,
    },
}


def write_authors(folder, segmenter=None, **changes):
    """The two files of the authors; `changes` are fields of variant.yml, as a__b for b within a."""
    folder.mkdir(exist_ok=True)
    torch.save(
        {"model": authors_state(segmenter or tiny()), "optimizer": {"lr": 0.1}, "epoch": 63}, folder / "checkpoint.pth"
    )
    (folder / "variant.yml").write_text(yaml.safe_dump(changed(VARIANT, **changes)))
    return folder


def changed(values: dict, **changes) -> dict:
    values = {key: changed(value) if isinstance(value, dict) else value for key, value in values.items()}
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = values
        for parent in parents:
            place = place[parent]
        place[last] = value
    return values


def refused(match: str, *what, **options) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        load_model(*what, **options)
    assert "\n" not in str(caught.value)


def test_the_authors_folder_gives_the_scores_of_the_model_that_was_saved(tmp_path):
    original = tiny()
    folder = write_authors(tmp_path / "seg", original)
    for module in original.backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5  # as in the authors' encoder, unlike timm's
    images = torch.randn(2, 3, 64, 64)
    for checkpoint in (folder, folder / "checkpoint.pth"):
        segmenter, info = load_model(NAME, str(checkpoint))
        assert (info.kind, info.source) == ("trained", f"{folder / 'checkpoint.pth'}[model]")
        assert not segmenter.training
        with torch.inference_mode():
            assert torch.equal(segmenter(images), original(images))


def test_our_own_files_are_read_back_and_half_precision_becomes_float32(tmp_path):
    halves = {key: value.half() for key, value in tiny().state_dict().items()}
    save_file(halves, tmp_path / "own.safetensors")
    segmenter, info = load_model(NAME, str(tmp_path / "own.safetensors"))
    assert info.source == str(tmp_path / "own.safetensors")
    for key, value in segmenter.state_dict().items():
        assert torch.equal(value, halves[key].float()), key


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"net_kwargs__d_model": 192}, r"net_kwargs\.d_model is 192, not 64"),
        ({"net_kwargs__n_layers": 12}, r"net_kwargs\.n_layers is 12, not 2"),
        ({"net_kwargs__n_heads": 3}, r"net_kwargs\.n_heads is 3, not 1"),
        ({"net_kwargs__n_cls": 19}, r"net_kwargs\.n_cls is 19, not 5"),
        ({"net_kwargs__patch_size": 32}, r"net_kwargs\.patch_size is 32, not 16"),
        ({"net_kwargs__image_size": [64, 128]}, r"net_kwargs\.image_size is \[64, 128\], not 64"),
        ({"net_kwargs__normalization": "deit"}, r"net_kwargs\.normalization is 'deit', not 'vit'"),
        ({"net_kwargs__distilled": True}, r"net_kwargs\.distilled is True, not False"),
        ({"net_kwargs__decoder__name": "linear"}, r"net_kwargs\.decoder\.name is 'linear', not 'mask_transformer'"),
        ({"inference_kwargs__window_size": 768}, r"inference_kwargs\.window_size is 768, not 64"),
    ],
)
def test_a_variant_that_contradicts_the_name_is_refused_with_the_field_and_both_values(tmp_path, change, said):
    folder = write_authors(tmp_path / "seg", **change)
    refused(rf"variant\.yml' contradicts model '{NAME}': {said}", NAME, str(folder))


def test_windows_that_were_meant_to_overlap_are_told_in_the_source(tmp_path):
    folder = write_authors(tmp_path / "seg", inference_kwargs__window_stride=48)
    assert load_model(NAME, str(folder))[1].source.endswith("[model], meant for windows every 48 pixels")


def test_without_a_variant_the_names_shape_counts(tmp_path, monkeypatch):
    folder = write_authors(tmp_path / "seg")
    (folder / "variant.yml").unlink()
    load_model(NAME, str(folder))
    known_as(monkeypatch, "seg_wide_mask_16", **{**SHAPE, "width": 128})
    misfit = r"'backbone.cls_token' has shape \(1, 1, 64\), the model needs \(1, 1, 128\)"
    refused(misfit, "seg_wide_mask_16", str(folder))


def test_a_variant_is_data_and_runs_nothing(tmp_path):
    folder = write_authors(tmp_path / "seg")
    (folder / "variant.yml").write_text(f"net_kwargs: !!python/object/apply:open ['{tmp_path / 'ran'}', w]")
    refused("variant.yml' cannot be read as YAML", NAME, str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "checkpoint.pth").write_bytes(pickle.dumps({"model": authors_state(tiny()), "x": Payload()}))
    refused("to unpickle that could run code", NAME, str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_position_embeddings_of_another_grid_are_resampled_bilinearly_and_that_is_said(tmp_path):
    larger = tiny(image_size=96)
    save_file(authors_state(larger), tmp_path / "larger.safetensors")
    segmenter, info = load_model(NAME, str(tmp_path / "larger.safetensors"))
    assert info.source.endswith("larger.safetensors, position embeddings resampled from 37 to 17")
    given, taken = larger.backbone.pos_embed[0], segmenter.backbone.pos_embed[0]
    assert torch.equal(taken[0], given[0])
    grid = given[1:].reshape(6, 6, 64).permute(2, 0, 1)
    expected = F.interpolate(grid[None], (4, 4), mode="bilinear")[0].permute(1, 2, 0).reshape(16, 64)
    assert torch.equal(taken[1:], expected)


def test_a_linear_decoder_is_refused(tmp_path):
    state = {key: value for key, value in authors_state(tiny()).items() if key.startswith("encoder.")}
    save_file({**state, "decoder.head.weight": torch.zeros(5, 64)}, tmp_path / "linear.safetensors")
    refused("has a linear decoder", NAME, str(tmp_path / "linear.safetensors"))
    save_file({**state, "decode_head.conv_seg.weight": torch.zeros(5, 64, 1, 1)}, tmp_path / "linear.safetensors")
    refused("has a linear decoder", NAME, str(tmp_path / "linear.safetensors"))


def test_keys_that_lack_or_are_too_many_are_named(tmp_path):
    state = authors_state(tiny())
    del state["decoder.mask_norm.weight"]
    save_file({**state, "encoder.dist_token": torch.zeros(1, 1, 64)}, tmp_path / "a.safetensors")
    missing = r"1 keys missing \(decoder\.mask_norm\.weight\), 1 keys unexpected \(backbone\.dist_token\)"
    refused(missing, NAME, str(tmp_path / "a.safetensors"))


def test_a_folder_without_the_checkpoint_and_a_path_to_nothing_are_refused(tmp_path):
    refused("has no checkpoint.pth", NAME, str(tmp_path))
    refused("does not exist", NAME, str(tmp_path / "nothing.pth"))


def test_random_weights_repeat_and_leave_the_random_state_alone():
    before = torch.get_rng_state()
    (one, first), (_, second) = load_model("seg_tiny_mask_16", "none"), load_model("seg_tiny_mask_16", "none")
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second
    assert (first.kind, first.source) == ("random", "random:seed=0")
    assert (one.window, one.num_classes, len(one.backbone.blocks), len(one.decoder.blocks)) == ((512, 512), 150, 12, 2)
    assert [one.pretrained_cfg[key] for key in ("mean", "std", "input_size")] == [(0.5,) * 3, (0.5,) * 3, (3, 512, 512)]


def test_names_are_known_and_what_they_have_not_is_refused():
    names = ["seg_tiny_mask_16", "seg_small_mask_16", "seg_base_mask_16", "seg_large_mask_16"]
    assert list_models("seg_*_mask_16") == [(name, "") for name in (*names, NAME)]
    assert [default_checkpoint(name) for name in ("seg_small_mask_16", "scenes_segmenter")] == [
        "pretrained",
        "embedded",
    ]
    for name in (*names, "scenes_segmenter"):
        check_model_name(name)
    with pytest.raises(RequestError, match="did you mean seg_small_mask_16"):
        check_model_name("seg_smal_mask_16")
    refused(r"no pretrained weights .* folder \(github.com/rstrudel/segmenter\)", "seg_small_mask_16")
    refused("use checkpoint embedded, none or a file", "scenes_segmenter", "pretrained")
    refused("no embedded weights; use checkpoint none or a file", NAME, "embedded")
    refused("takes images of 64 pixels, not 128; leave the size out", NAME, "none", image_size=128)
    refused("has 5 classes, not 7", NAME, "none", num_classes=7)
    load_model(NAME, "none", image_size=64, num_classes=5)


def test_embedded_weights_are_the_default_of_the_embedded_segmenter(monkeypatch, tmp_path):
    state = {key: value + 0.5 for key, value in build_scenes_segmenter().state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    ours = replace(MODELS["scenes_segmenter"], weights=tmp_path / "w.safetensors")
    monkeypatch.setitem(MODELS, "scenes_segmenter", ours)
    segmenter, info = load_model("scenes_segmenter")
    assert (info.kind, info.source) == ("trained", "embedded:scenes_segmenter")
    for key, value in segmenter.state_dict().items():
        assert torch.equal(value, state[key]), key
