"""Captioners from folders, the hub and nothing: what is read is what was written; all else is one clear line."""

import json
import pickle
import shutil
from dataclasses import replace

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_git import PREPARATION, SIDE, WORDS, pictures, tiny_git, write_folder

from suite import RequestError
from suite.models.captioner import Captioner
from suite.models.captioner_files import read_preparation, read_tokenizer
from suite.models.load import check_model_name, load_model
from suite.models.registry import CAPTIONER, MODELS, default_checkpoint, list_models
from tasks.reading.images import TimmPreprocessing


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tiny_git(), tmp_path_factory.mktemp("git"))


@pytest.fixture
def folder(written, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(written, tmp_path / "git")


SHAPE = {"model_type": "git", "vocab_size": WORDS, "vision_config": {"image_size": SIDE}}


def refused(match: str, *what, **options) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        load_model(*what, **options)
    assert "\n" not in str(caught.value)


def test_a_folder_that_transformers_wrote_gives_the_captions_of_the_model(folder):
    captioner, info = load_model("git", str(folder))
    assert (info.kind, info.source) == ("trained", str(folder))
    assert not captioner.training
    captions = captioner(pictures())
    assert [caption.tokens for caption in captions] == [c.tokens for c in Captioner(tiny_git())(pictures())]
    for caption in captions:
        assert caption.text.split() == [f"word{i}" for i in caption.tokens if i > 2]


def test_pickled_weights_of_tensors_are_read_and_those_that_run_code_are_not(folder, tmp_path):
    expected = load_model("git", str(folder))[0](pictures())
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    # older releases stored their fixed tables of positions
    torch.save({**state, "git.embeddings.position_ids": torch.arange(64)[None]}, folder / "pytorch_model.bin")
    assert load_model("git", str(folder))[0](pictures()) == expected

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({**state, "x": Payload()}))
    refused("to unpickle that could run code", "git", str(folder))
    assert not (tmp_path / "ran").exists()


def test_half_precision_weights_become_float32(folder):
    halves = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors", {"format": "pt"})
    captioner, _ = load_model("git", str(folder))
    assert {parameter.dtype for parameter in captioner.parameters()} == {torch.float32}


def test_the_digest_covers_all_that_a_caption_depends_on(folder):
    digests = {load_model("git", str(folder))[1].sha256}
    for name in ("preprocessor_config.json", "config.json", "tokenizer.json"):
        file = folder / name
        file.write_text(file.read_text() + "\n")
        digests.add(load_model("git", str(folder))[1].sha256)
    state = load_file(folder / "model.safetensors")
    state["output.bias"] += 1
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    digests.add(load_model("git", str(folder))[1].sha256)
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors and no pytorch_model.bin"),
        ("tokenizer.json", "has no tokenizer.json and no vocab.txt"),
        ("preprocessor_config.json", "has no preprocessor_config.json"),
    ],
)
def test_a_missing_file_is_named(folder, missing, named):
    (folder / missing).unlink()
    refused(named, "git", str(folder))


def test_what_is_no_folder_is_refused(folder):
    refused("does not exist", "git", str(folder / "nothing"))
    refused("is not a folder", "git", str(folder / "config.json"))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", "[]", "holds a list"),
        ("config.json", '{"model_type": "bert"}', "'bert', not 'git'"),
        ("config.json", '{"model_type": "git", "eos_token_id": null}', "eos_token_id=None"),
        ("config.json", json.dumps({**SHAPE, "hidden_size": "wide"}), "GIT"),
        ("config.json", json.dumps({**SHAPE, "num_attention_heads": 5}), "GIT"),
        ("preprocessor_config.json", "nonsense", "cannot be read as JSON"),
        ("tokenizer.json", "{}", "is no tokenizer"),
        ("model.safetensors", "torn", "cannot be read"),
    ],
)
def test_a_broken_file_is_named_with_the_reason(folder, file, content, reason):
    (folder / file).write_text(content)
    refused(f"{file}.*{reason}", "git", str(folder))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_processor_type": "VideoMAEImageProcessor"}, "is of type VideoMAEImageProcessor"),
        ({"do_center_crop": False}, "turns do_center_crop off"),
        ({"size": {"height": SIDE, "width": SIDE}}, "not a shortest_edge"),
        ({"crop_size": {"height": SIDE, "width": SIDE + 1}}, "not a square within the size"),
        ({"size": {"shortest_edge": SIDE - 1}}, "not a square within the size"),
        ({"crop_size": {"height": 16, "width": 16}}, "crops to 16 pixels, but the model takes 32"),
        ({"resample": 1}, "resample 1"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0, not 1/255"),
        ({"rescale_factor": "a lot"}, "wrong type"),
        ({"image_std": [0.5]}, r"image_std \[0.5\]"),
        ({"image_mean": None}, "image_mean None"),
    ],
)
def test_preparation_of_images_that_timm_has_no_words_for_is_refused(folder, changes, reason):
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPARATION, **changes}))
    refused(reason, "git", str(folder))


def photograph(width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(3)
    soft = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height))
    grain = draw.integers(-20, 20, (height, width, 3))
    return Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("resample", [2, 3], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [32, 36, 37, 45])
@pytest.mark.parametrize("photo", [(640, 480), (48, 64), (100, 33), (32, 32), (301, 500)], ids=str)
def test_images_are_prepared_as_transformers_prepares_them(written, photo, size, resample):
    asked = {**PREPARATION, "size": {"shortest_edge": size}, "resample": resample}
    processor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)(**asked)
    image = photograph(*photo)
    own = processor(images=image, return_tensors="pt").pixel_values[0]
    given = TimmPreprocessing.of(Captioner(tiny_git(), pretrained_cfg=prepared(written, asked)))(image)
    torch.testing.assert_close(given, own, atol=1e-5, rtol=0)


def prepared(folder, asked):
    path = folder.parent / "asked"
    path.mkdir(exist_ok=True)
    (path / "preprocessor_config.json").write_text(json.dumps(asked))
    return read_preparation(path, tiny_git().config)


@pytest.mark.parametrize("tidy", [None, True, False])
def test_word_pieces_are_joined_as_transformers_joins_them(tmp_path, tidy):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, "a", "dog", "##s", "'", "s", "bed", ".", "un", "##real", "don", "t"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    if tidy is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"clean_up_tokenization_spaces": tidy}))
    ours, own = read_tokenizer(tmp_path, len(words)), transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))
    texts = []
    for ids in ([5, 6, 7, 12, 13, 11], [5, 6, 8, 9, 10], [14, 8, 15, 10]):
        clean = tidy is not False
        texts.append(ours.decode(ids))
        assert texts[-1] == own.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean)
    assert texts[1] == ("a dog ' s bed" if tidy is False else "a dog's bed")


def test_a_tokenizer_of_another_model_is_refused(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    del tokenizer["model"]["vocab"][f"word{WORDS - 1}"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused("has 59 words, the model 60", "git", str(folder))


def test_weights_that_do_not_fit_their_configuration_name_the_key(folder):
    state = load_file(folder / "model.safetensors")
    state["output.extra"] = state.pop("output.bias")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    refused(r"1 keys missing \(output.bias\), 1 keys unexpected \(output.extra\)", "git", str(folder))


def test_a_folder_of_another_shape_than_the_model_named_is_refused(folder):
    refused("image_size is 32, not 224; name the model 'git'", "git_base_coco", str(folder))


@pytest.mark.parametrize("name", ["git_base_coco", "microsoft/git-large-coco", "someone/git-of-theirs"])
def test_a_hub_that_cannot_be_reached_is_one_line_with_a_way_out(monkeypatch, tmp_path, name):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    refused("no pretrained weights for .* give a local folder", name, "pretrained")


def test_names_are_known_and_sizes_and_classes_refused(folder):
    assert ("git_base_coco", "pretrained") in list_models("git*")
    assert [default_checkpoint(name) for name in ("git_base_coco", "scenes_git")] == ["pretrained", "embedded"]
    for name in (*(name for name, entry in MODELS.items() if entry.kind == CAPTIONER), "microsoft/git-base-coco"):
        check_model_name(name)
    with pytest.raises(RequestError, match="did you mean git_base_coco"):
        check_model_name("git_bas_coco")
    refused("takes images of 32 pixels, not 64", "git", str(folder), image_size=64)
    refused("writes captions; it has no classes, let alone 7", "git", str(folder), num_classes=7)
    refused("shape of model 'git' is not known", "git", "none")
    refused(r"no pretrained .* give its folder as the checkpoint \(--checkpoint FOLDER\)", "git", "pretrained")
    refused("use checkpoint embedded, none or a folder", "scenes_git", "pretrained")
    refused("no embedded weights; use checkpoint pretrained, none or a folder", "git_base_coco", "embedded")


def test_an_embedded_captioner_comes_with_its_words_and_random_weights_repeat(monkeypatch, folder):
    ours = replace(MODELS["scenes_git"], weights=folder, shape={"folder": folder})
    monkeypatch.setitem(MODELS, "scenes_git", ours)
    captioner, info = load_model("scenes_git")
    assert (info.kind, info.source) == ("trained", "embedded:scenes_git")
    assert captioner(pictures())[0].text.startswith("word")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    (one, first), (_, second) = load_model("scenes_git", "none"), load_model("scenes_git", "none")
    assert first == second
    assert (first.kind, first.source) == ("random", "random:seed=0")
    assert torch.equal(torch.get_rng_state(), state)
    assert one(pictures())[0].text.startswith("word")
