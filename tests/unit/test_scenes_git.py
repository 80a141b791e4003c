"""The captioning model that is shipped for the scenes, and the recipe that made it."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoTokenizer, GitForCausalLM

import suite
from suite.models.load import load_model
from suite.models.scenes_git import build_scenes_git, build_word_tokenizer
from suite.train import caption_batches
from suite.train.caption_batches import MAIN, NEIGHBOUR, CaptionData, batch_of, pack_captions
from suite.train.embedded import captioner
from suite.train.loop import CHECKPOINT, save
from suite.train.scene_batches import normalise, patch_geometry, patch_labels
from suite.train.warm_start import warm_start
from tasks.scenes.drawing import COLOURS, PATTERNS, SHAPES
from tasks.scenes.generator import VERSION, draw_scene

FOLDER = Path(suite.__file__).parent / "weights" / "scenes_git"
TINY = captioner.Recipe(scenes=8, frozen_steps=1, joint_steps=2, batch_size=4, lr=1e-3, encoder_lr=1e-3)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def shipped():
    return GitForCausalLM.from_pretrained(FOLDER, local_files_only=True).eval()


@pytest.fixture(scope="module")
def data(tokenizer):
    """Eight training scenes, as `caption_data` reads them."""
    scenes = [draw_scene("train", i) for i in range(8)]
    patches = [patch_labels(scene.mask) for scene in scenes]
    rows = [caption_batches.describe_scene(scene) for scene in scenes]
    captions = np.array([texts for texts, _ in rows], dtype=bytes)
    return CaptionData(
        np.stack([scene.image for scene in scenes]),
        np.stack(patches),
        np.stack([patch_geometry(scene, labels) for scene, labels in zip(scenes, patches)]),
        np.array([scene.label for scene in scenes]),
        np.array([facts for _, facts in rows], dtype=np.uint8),
        captions,
        pack_captions(captions, tokenizer),
    )


def write_cache(folder: Path, data: CaptionData) -> None:
    """The files of scenes drawn before: the eight scenes as every split."""
    folder.mkdir()
    for part in ("images", "patches", "geometry", "labels", "facts", "captions"):
        for split in ("train", "val", "test"):
            np.save(folder / f"v{VERSION}-{split}-8-{part}.npy", getattr(data, part))


def test_the_shipped_folder_is_small_and_says_how_it_was_made():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 6_000_000
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        facts = file.metadata()
        assert all(file.get_tensor(name).dtype == torch.float16 for name in file.keys())  # noqa: SIM118
    assert json.loads(facts["recipe"]).keys() == asdict(captioner.Recipe()).keys()
    assert json.loads(facts["generator_version"]) == VERSION
    assert json.loads(facts["steps_done"]) > 0
    assert json.loads(facts["test"])["cider"] > json.loads(facts["test"])["cider_of_shuffled"]


def test_the_shipped_model_is_float32_with_a_14_by_14_grid_and_its_own_special_tokens(shipped, tokenizer):
    assert {parameter.dtype for parameter in shipped.parameters()} == {torch.float32}
    assert shipped.git.image_encoder(torch.zeros(1, 3, 112, 112)).last_hidden_state.shape == (1, 197, 96)
    assert shipped.config.vocab_size == len(tokenizer)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        assert getattr(shipped.generation_config, name) == getattr(tokenizer, name) is not None


def test_every_caption_makes_the_round_trip_through_the_shipped_tokenizer(tokenizer):
    for text in (text for i in range(60) for text in draw_scene("test", i).captions):
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer("a turquoise star").input_ids[2] == tokenizer.unk_token_id


def test_the_recipe_writes_the_texts_that_are_shipped(tmp_path):
    words = build_word_tokenizer(caption_batches.vocabulary())
    captioner.write_texts(build_scenes_git(len(words)), words, tmp_path)
    for file in tmp_path.iterdir():
        written, kept = (json.loads((folder / file.name).read_text()) for folder in (tmp_path, FOLDER))
        assert {**written, "transformers_version": ""} == {**kept, "transformers_version": ""}
    assert len(list(tmp_path.iterdir())) == 5


def test_transformers_preprocessing_of_the_folder_is_that_of_the_training():
    image = draw_scene("val", 0).image
    processor = AutoImageProcessor.from_pretrained(FOLDER, local_files_only=True)
    given = torch.as_tensor(np.array(processor(images=image)["pixel_values"]))
    assert torch.allclose(given, normalise(image[None]), atol=1e-5)


def test_the_shipped_model_names_the_main_object_of_most_scenes(shipped, tokenizer):
    scenes = [draw_scene("val", i) for i in range(24)]
    images = normalise(np.stack([scene.image for scene in scenes]))
    ids = shipped.generate(pixel_values=images, max_new_tokens=24, do_sample=False)
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    kinds = [f"{thing.colour} {thing.shape}" for scene in scenes for thing in scene.objects if thing.is_main]
    assert len(kinds) == 24
    named = sum(kind in text for kind, text in zip(kinds, texts))
    others = sum(kind in text for kind, text in zip(kinds, texts[1:] + texts[:1]))
    assert named >= 18
    assert others <= 8  # chance: one in 48 for each of the two objects that a caption names
    assert all(any(colour in text for colour in COLOURS) and any(shape in text for shape in SHAPES) for text in texts)


def test_packed_captions_give_the_logits_that_transformers_gives_for_each_by_itself(data):
    torch.manual_seed(0)
    git = build_scenes_git(54).eval()
    images, words = normalise(data.images[:2]), torch.from_numpy(data.words[:2, 0].astype(np.int64))
    with torch.no_grad():
        found = captioner.next_word_logits(git, git.git.image_encoder(images).last_hidden_state, words)
        for row in range(2):
            starts = (words[row] == git.config.bos_token_id).nonzero().flatten().tolist()
            ends = ((words[row] == git.config.eos_token_id).nonzero().flatten() + 1).tolist()
            assert len(starts) == len(ends) == 5
            for start, end in zip(starts, ends):
                alone = git(input_ids=words[row : row + 1, start:end], pixel_values=images[row : row + 1]).logits
                assert torch.allclose(found[row, start:end], alone[0, 197:], atol=1e-4)


def test_the_word_loss_is_the_weighted_mean_over_the_words_that_follow():
    git = build_scenes_git(9)
    words = torch.tensor([[1, 5, 2, 1, 6, 7, 2, 0]])
    logits = torch.randn(1, 8, 9, generator=torch.Generator().manual_seed(0))
    surprise = -logits.log_softmax(-1)[0]
    terms = [(1, 0, 5), (1, 1, 2), (3, 3, 6), (3, 4, 7), (3, 5, 2)]  # weight, position, next word
    expected = sum(weight * surprise[place, word] for weight, place, word in terms) / 11
    assert captioner.WORDING_WEIGHTS[:2] == (1, 3)
    assert captioner.word_loss(logits, words, git) == pytest.approx(expected.item(), rel=1e-5)


def test_a_scene_in_the_mirror_swaps_left_and_right_in_pixels_captions_and_targets(data, tokenizer):
    rows = np.arange(8)
    plain, mirrored = (batch_of(data, rows, np.full(8, flag)) for flag in (False, True))
    assert torch.equal(mirrored.images, plain.images.flip(-1))
    assert torch.equal(mirrored.roles.view(8, 14, 14), plain.roles.view(8, 14, 14).flip(-1))
    assert torch.equal(mirrored.geometry[..., 1].view(8, 14, 14), plain.geometry[..., 1].view(8, 14, 14).flip(-1))
    swap = {"left": "right", "right": "left"}
    for there, here in zip(mirrored.words, plain.words):
        text = tokenizer.decode(here, skip_special_tokens=True).split()
        assert tokenizer.decode(there, skip_special_tokens=True).split() == [swap.get(word, word) for word in text]


def test_the_pattern_is_the_one_that_captions_name(data):
    batch = batch_of(data, np.arange(8), np.ones(8, bool))
    for row, scene in enumerate(draw_scene("train", i) for i in range(8)):
        assert {PATTERNS[i] for i in batch.patterns[row].tolist()} == {scene.pattern}
        assert f"on a {scene.pattern} background" in scene.captions[1]


def test_roles_mark_the_patches_of_the_two_objects_that_captions_name(data):
    batch = batch_of(data, np.arange(8), np.zeros(8, bool))
    for row in range(8):
        assert set(batch.patches[row][batch.roles[row] == MAIN].tolist()) == {data.labels[row] + 1}
        assert set(batch.patches[row][batch.roles[row] == NEIGHBOUR].tolist()) <= {data.facts[row, 0] + 1}


def test_the_encoder_starts_as_the_classifier_up_to_what_GIT_does_differently():
    classifier, _ = load_model("scenes_vit", "embedded")
    scenes = [draw_scene("val", i) for i in range(32)]
    images, labels = normalise(np.stack([s.image for s in scenes])), torch.tensor([s.label for s in scenes])
    git = build_scenes_git(9).eval()
    warm_start(git.git.image_encoder.vision_model, classifier, images)
    with torch.no_grad():
        features = git.git.image_encoder(images).last_hidden_state
        right = (classifier.forward_head(features).argmax(1) == labels).float().mean()
    assert right > 0.8


@pytest.mark.slow
def test_a_training_resumed_from_its_checkpoint_ends_where_an_uninterrupted_one_does(data, tmp_path):
    write_cache(tmp_path / "cache", data)
    checkpoint, job = tmp_path / "cache" / "captioner" / CHECKPOINT, captioner.CaptionerJob(TINY, data, 54)
    job.update(0)
    checkpoint.parent.mkdir()
    save(job, checkpoint, 1)
    for step in (1, 2):
        job.update(step)
    captioner.train(TINY, tmp_path / "out", tmp_path / "cache", 5, 1, compiled=False, held_out=8)
    resumed = torch.load(checkpoint, weights_only=True)
    assert resumed["step"] == 3
    assert all(torch.equal(value, resumed["job"]["model"][name]) for name, value in job.model.state_dict().items())
    written = GitForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    assert torch.equal(written.output.weight, job.model.git.output.weight.half().float())


def test_training_on_the_same_scenes_again_and_again_lowers_both_losses(data):
    recipe = replace(TINY, joint_steps=4, batch_size=8)
    job = captioner.CaptionerJob(recipe, data, 54)
    noted = [job.update(step) for step in range(recipe.steps)]
    losses = np.array([[one["words"], one["patches"]] for one in noted])
    assert np.isfinite(losses).all()
    assert (losses[-1] < losses[0]).all()


def test_the_frozen_encoder_stays_as_it_is_and_then_learns(data):
    job = captioner.CaptionerJob(TINY, data, 54)
    weight = job.model.git.git.image_encoder.vision_model.encoder.layers[0].mlp.fc1.weight
    before = weight.detach().clone()
    job.update(0)
    assert torch.equal(weight, before)
    job.update(1)
    assert not torch.equal(weight, before)
