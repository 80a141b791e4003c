"""The embedded scenes and the model that is shipped for them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import suite
from suite.errors import RequestError
from suite.models.scenes_eva import build_scenes_eva
from suite.models.scenes_vit import SCENES_CLASSES, build_scenes_vit
from suite.train.embedded.classifier import accuracy
from suite.train.embedded.rotary_classifier import Recipe, RotaryJob, prepare_model
from suite.train.scene_batches import GRID, PATCH, WINDOW, batch_of, normalise, patch_geometry, patch_labels
from tasks.scenes.classes import Scenes
from tasks.scenes.drawing import COLOURS, SHAPES, SIDE, Dice, distance, unit_area
from tasks.scenes.generator import CLASS_NAMES, MARGIN, NUM_CLASSES, VERSION, draw_scene, scene_label

WEIGHTS = Path(suite.__file__).parent / "weights"
MODELS = {"scenes_vit": build_scenes_vit, "scenes_eva": build_scenes_eva}


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene("val", i) for i in range(60)]


@pytest.fixture(scope="module", params=MODELS)
def shipped(request):
    model, file = MODELS[request.param](), WEIGHTS / f"{request.param}.safetensors"
    model.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    return model.eval()


def test_a_scene_is_the_same_whenever_and_in_whatever_order_it_is_drawn():
    first = draw_scene("test", 7)
    draw_scene("test", 8)
    again = draw_scene("test", 7)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert (first.label, first.captions, first.objects) == (again.label, again.captions, again.objects)


def test_a_scene_is_the_stored_one():
    scene = draw_scene("test", 0)
    assert VERSION == 1, "a new generator version needs new stored values and new weights"
    assert CLASS_NAMES[scene.label] == "yellow square"
    assert scene.captions[0] == "a medium yellow square left of a medium yellow disc"
    assert float(scene.image.mean()) == pytest.approx(141.31829294217687, abs=1e-3)
    assert hashlib.sha256(scene.mask.tobytes()).hexdigest()[:16] == "1b7b6d0f66c44f23"
    assert hashlib.sha256(scene.image.tobytes()).hexdigest()[:16] == "b017d6f8686038c1"


def test_splits_and_indices_give_different_scenes():
    images = [draw_scene(split, i).image.tobytes() for split in ("train", "val", "test") for i in range(3)]
    assert len(set(images)) == 9


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'dev' is not one of train, val, test"):
        draw_scene("dev", 0)


def test_pictures_are_rgb_bytes_of_one_size_that_use_the_range(scenes):
    for scene in scenes:
        assert scene.image.shape == (SIDE, SIDE, 3)
        assert scene.mask.shape == (SIDE, SIDE)
        assert scene.image.dtype == scene.mask.dtype == np.uint8
        assert scene.image.std() > 12


def test_classes_are_every_shape_in_every_colour_and_all_occur():
    assert NUM_CLASSES == SCENES_CLASSES == len(set(CLASS_NAMES)) == len(SHAPES) * len(COLOURS) >= 40
    counts = np.bincount([scene_label("test", i) for i in range(1000)], minlength=NUM_CLASSES)
    assert counts.min() >= 8


def test_the_label_is_the_object_with_the_largest_visible_area_by_the_margin(scenes):
    for scene in scenes:
        main = next(thing for thing in scene.objects if thing.is_main)
        assert main.class_id == scene.label == CLASS_NAMES.index(f"{main.colour} {main.shape}")
        assert np.count_nonzero(scene.mask == scene.label + 1) == main.visible_area
        others = [thing for thing in scene.objects if not thing.is_main]
        assert all(thing.visible_area <= MARGIN * main.visible_area for thing in others)
        assert all(thing.class_id != main.class_id for thing in others)
        assert sum(thing.visible_area for thing in scene.objects) == np.count_nonzero(scene.mask)
        assert 3 <= len(scene.objects) <= 6


def test_other_objects_share_the_shape_or_the_colour_of_the_main_one(scenes):
    for scene in scenes:
        main = next(thing for thing in scene.objects if thing.is_main)
        shared = [thing for thing in scene.objects if (thing.shape == main.shape) != (thing.colour == main.colour)]
        assert shared


def test_captions_are_several_different_wordings_that_name_the_main_object(scenes):
    for scene in scenes:
        colour, shape = CLASS_NAMES[scene.label].split()
        assert len(set(scene.captions)) == len(scene.captions) >= 3
        assert all(f"{colour} {shape}" in caption for caption in scene.captions)
        assert not any("a orange" in caption for caption in scene.captions)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fits_the_unit_disc_and_has_no_area_outside(shape):
    steps = np.linspace(-1.5, 1.5, 301)
    u, v = np.meshgrid(steps, steps)
    inside = distance(shape, u, v) < 0
    assert np.hypot(u, v)[inside].max() <= 1.03
    assert inside.sum() * 0.01**2 == pytest.approx(unit_area(shape), rel=0.03)


def test_random_numbers_are_uniform_and_bell_shaped():
    dice = Dice(1, 2, 3)
    values, bell = dice.array(20000), dice.bell(20000)
    assert 0 <= values.min() < 0.01 < 0.99 < values.max() < 1
    assert abs(bell.mean()) < 0.03
    assert bell.std() == pytest.approx(1, abs=0.02)


def test_patch_labels_say_which_object_fills_a_patch():
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:8, :8] = 5  # the whole first patch
    mask[8:16, 0:1] = 7  # 8 of 64 pixels: too few
    labels = patch_labels(mask)
    assert labels.shape == (GRID, GRID)
    assert labels[0, 0] == 5
    assert labels.sum() == 5


def test_patch_geometry_points_from_every_object_patch_to_its_object(scenes):
    for scene in scenes[:10]:
        labels = patch_labels(scene.mask)
        geometry = patch_geometry(scene, labels).astype(float)
        main = next(thing for thing in scene.objects if thing.is_main)
        rows, cols = np.nonzero(labels == scene.label + 1)
        assert geometry[rows, cols, 0] * 16 + cols * PATCH + PATCH / 2 == pytest.approx(main.cx, abs=0.1)
        assert geometry[rows, cols, 1] * 16 + rows * PATCH + PATCH / 2 == pytest.approx(main.cy, abs=0.1)
        assert not geometry[labels == 0].any()


@pytest.mark.parametrize("windowed", [False, True])
def test_a_training_batch_keeps_pixels_targets_and_positions_together(scenes, windowed):
    patches = [patch_labels(scene.mask) for scene in scenes[:16]]
    images = np.stack([scene.image for scene in scenes[:16]])
    geometry = np.stack([patch_geometry(scene, labels) for scene, labels in zip(scenes, patches)])
    data = images, np.stack(patches), geometry, np.array([scene.label for scene in scenes[:16]])
    side = WINDOW if windowed else GRID
    pixels, where, classes, _, labels = batch_of(data, np.arange(16), np.random.default_rng(0), windowed)
    assert pixels.shape == (16, 3, side * PATCH, side * PATCH)
    mirrored = 0
    for i in range(16):
        top, left = divmod(int(where[i, 0]), GRID)
        rows, cols = slice(top, top + side), slice(left, left + side)
        rows8, cols8 = slice(top * PATCH, (top + side) * PATCH), slice(left * PATCH, (left + side) * PATCH)
        flip = not np.array_equal(pixels[i], normalise(images[i : i + 1, rows8, cols8])[0])
        image, target = (images[i, :, ::-1], patches[i][:, ::-1]) if flip else (images[i], patches[i])
        assert np.array_equal(pixels[i], normalise(image[None, rows8, cols8])[0])
        assert np.array_equal(classes[i], target[rows, cols].ravel())
        assert (classes[i] == labels[i] + 1).any()
        mirrored += flip
    assert 0 < mirrored < 16


def test_the_task_lists_its_samples_and_loads_them_normalised():
    task = Scenes(limit=3, scenes=50)
    assert [sample.id for sample in task.samples] == ["test/00008", "test/00025", "test/00041"]
    sample = task.samples[1]
    scene = draw_scene("test", 25)
    assert sample.label == scene.label
    loaded = task.load(sample, task.preprocessing(build_scenes_vit()))
    assert torch.allclose(loaded, normalise(scene.image[None])[0], atol=1e-6)


def test_the_task_has_a_thousand_held_out_scenes():
    samples = Scenes().samples
    assert len({sample.id for sample in samples}) == len(samples) == 1000
    assert all(sample.id.startswith("test/") for sample in samples)


@pytest.mark.parametrize("asked", [{"data": "folder"}, {"split": "dev"}, {"scenes": 0}, {"limit": 0}])
def test_what_the_task_cannot_do_is_refused(asked):
    with pytest.raises(RequestError):
        Scenes(**asked)


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_weights_are_small_and_say_how_they_were_made(name):
    path = WEIGHTS / f"{name}.safetensors"
    assert path.stat().st_size <= 3 * 2**20
    with safe_open(path, "pt") as file:
        facts = {key: json.loads(value) for key, value in file.metadata().items()}
    assert facts["generator_version"] == VERSION
    assert 0 < facts["steps_done"] <= facts["total_steps"]
    assert 0.85 <= facts["test_top1"] <= 0.99


def test_the_shipped_model_recognises_the_main_object_in_held_out_scenes(shipped):
    drawn = [draw_scene("test", i) for i in range(100)]
    images = np.stack([scene.image for scene in drawn])
    labels = np.array([scene.label for scene in drawn])
    assert accuracy(shipped, (images, None, labels)) >= 0.85


def test_the_rotary_model_knows_places_by_rotations_alone_and_starts_from_the_classifier():
    model = prepare_model(Recipe())
    assert model.vit.pos_embed is None
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    where = torch.arange(GRID**2).expand(2, -1)
    with torch.no_grad():
        logits, classes, _, geometry = model(images, where)
        torch.testing.assert_close(logits, model.vit(images), atol=1e-4, rtol=1e-4)
        assert classes.shape == (2, GRID**2, NUM_CLASSES + 1)
        assert geometry.shape == (2, GRID**2, 3)
        model.share = 1.0
        assert not torch.allclose(model(images, where)[0], logits)


def test_the_rotary_model_learns_windows_first_and_what_tells_places_apart_fades():
    drawn = [draw_scene("train", i) for i in range(4)]
    labels = [patch_labels(scene.mask) for scene in drawn]
    geometry = [patch_geometry(scene, patches) for scene, patches in zip(drawn, labels, strict=True)]
    data = tuple(np.stack(part) for part in ([scene.image for scene in drawn], labels, geometry))
    recipe = Recipe(window_steps=2, window_batch_size=2, full_steps=1, full_batch_size=2, fading_steps=2)
    job = RotaryJob(recipe, (*data, np.array([scene.label for scene in drawn])), model=prepare_model(recipe))
    shares = []
    for step in range(recipe.steps):
        noted = job.update(step)
        shares.append(job.model.share)
        assert np.isfinite(noted["loss"])
    assert shares == [1.0, 0.5, 0.0]
