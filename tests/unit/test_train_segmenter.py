"""The Segmenter that is shipped for the scenes, and the recipe that made it."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import suite
from suite import RequestError
from suite.models.load import load_model
from suite.models.scenes_segmenter import SCENES_LABELS, build_scenes_segmenter
from suite.sweep.progress import Progress
from suite.train.embedded import segmenter
from suite.train.loop import CHECKPOINT, METRICS, Diverged, save, train
from suite.train.scene_batches import normalise
from suite.train.segment_batches import batch_of, segment_data
from tasks.scenes.generator import NUM_CLASSES, VERSION, draw_scene

FILE = Path(suite.__file__).parent / "weights" / "scenes_segmenter.safetensors"
TINY = segmenter.Recipe(scenes=8, frozen_steps=1, joint_steps=2, batch_size=4)


def scenes_of(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks, as `segment_data` reads them."""
    scenes = [draw_scene(split, i) for i in range(count)]
    return np.stack([scene.image for scene in scenes]), np.stack([scene.mask for scene in scenes])


@pytest.fixture(scope="module")
def data():
    return scenes_of("train", 8)


@pytest.fixture(scope="module")
def shipped():
    model, _ = load_model("scenes_segmenter", "embedded")
    return model


def write_cache(folder: Path, data: tuple[np.ndarray, np.ndarray]) -> None:
    """The files of scenes drawn before: the eight scenes as every split. Of the classifier's, images alone are read."""
    folder.mkdir()
    nothing = np.zeros(8)
    parts = {"images": data[0], "masks": data[1], "patches": nothing, "geometry": nothing, "labels": nothing}
    for part, array in parts.items():
        for split in ("train", "val", "test"):
            np.save(folder / f"v{VERSION}-{split}-8-{part}.npy", array)


def test_the_shipped_file_is_small_and_says_how_it_was_made():
    assert FILE.stat().st_size < 6_000_000
    with safe_open(FILE, "pt") as file:
        facts = file.metadata()
        assert all(file.get_tensor(name).dtype == torch.float16 for name in file.keys())  # noqa: SIM118
    assert json.loads(facts["recipe"]).keys() == asdict(segmenter.Recipe()).keys()
    assert json.loads(facts["generator_version"]) == VERSION
    assert json.loads(facts["steps_done"]) == json.loads(facts["total_steps"]) > 0
    assert 60 < json.loads(facts["test_miou"]) < 97


def test_the_shipped_model_segments_scenes_and_loses_some_of_it_when_most_tokens_are_merged(shipped):
    test = scenes_of("test", 50)
    whole = segmenter.mean_iou(shipped, test)
    assert 60 < whole < 97
    with suite.attach(shipped, "tome", "merge=0.8"):
        merged = segmenter.mean_iou(shipped, test)
    assert 5 < merged < whole - 3
    shifted = (test[0], np.roll(test[1], 1, axis=0))  # the masks of other scenes
    assert segmenter.mean_iou(shipped, shifted) < 10


def test_one_scene_is_one_window_and_there_is_a_label_for_the_background(shipped):
    assert shipped.window == (112, 112)
    assert shipped.num_classes == SCENES_LABELS == NUM_CLASSES + 1
    assert {shipped.pretrained_cfg["mean"], shipped.pretrained_cfg["std"]} == {(0.5, 0.5, 0.5)}
    assert shipped(torch.zeros(1, 3, 112, 112)).shape == (1, 49, 112, 112)


def test_masks_are_drawn_once_and_are_those_of_the_scenes(data, tmp_path):
    write_cache(tmp_path / "cache", data)
    file = tmp_path / "cache" / f"v{VERSION}-train-8-masks.npy"
    file.unlink()
    images, masks = segment_data("train", 8, tmp_path / "cache", 1)
    assert np.array_equal(images, data[0])
    assert np.array_equal(masks, data[1])
    file.unlink()  # not written over: it is mapped
    np.save(file, data[1][::-1])
    assert np.array_equal(segment_data("train", 8, tmp_path / "cache", 1)[1], data[1][::-1])


def test_a_batch_has_the_scenes_that_were_asked_for_and_mirrors_image_and_mask_alike(data):
    images, masks = batch_of(data, np.array([1, 4]), np.array([False, True]))
    first, second = draw_scene("train", 1), draw_scene("train", 4)
    assert torch.equal(images[:1], normalise(first.image[None]))
    assert torch.equal(images[1:], normalise(second.image[None]).flip(-1))
    assert np.array_equal(masks[0], first.mask)
    assert np.array_equal(masks[1], second.mask[:, ::-1])
    assert np.array_equal(data[1][4], second.mask)  # what was read stays as it is


@pytest.mark.parametrize("corner", [(0, 0), (1, 2), (3, 3)])
def test_the_logits_of_the_loss_are_those_of_forward_at_these_pixels(corner):
    torch.manual_seed(0)
    model, images = build_scenes_segmenter().eval(), torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        some = segmenter.pixel_logits(model.grid_logits(images), (112, 112), corner)
        whole = model(images)
    assert some.shape == (2, 49, 28, 28)
    assert torch.allclose(some, whole[:, :, corner[0] :: 4, corner[1] :: 4], atol=1e-5)


def test_pixels_on_all_corners_together_give_the_loss_of_all_pixels(data):
    scores, truth = torch.randn(2, 49, 14, 14), torch.from_numpy(data[1][:2].astype(np.int64))
    corners = [(top, left) for top in range(4) for left in range(4)]
    parts = [
        cross_entropy(segmenter.pixel_logits(scores, (112, 112), (top, left)), truth[:, top::4, left::4])
        for top, left in corners
    ]
    whole = cross_entropy(segmenter.pixel_logits(scores, (112, 112), (0, 0), stride=1), truth)
    assert torch.stack(parts).mean() == pytest.approx(whole.item(), rel=1e-5)


def test_the_mean_is_taken_over_the_classes_that_are_there_or_predicted(data):
    class Oracle(torch.nn.Module):
        """Says of every scene what the first one shows, but for one row of pixels."""

        num_classes = SCENES_LABELS

        def forward(self, images):
            said = torch.from_numpy(data[1][0].astype(np.int64))
            said[0] = NUM_CLASSES
            return torch.nn.functional.one_hot(said, SCENES_LABELS).permute(2, 0, 1)[None].float()

    assert NUM_CLASSES not in data[1][0]
    first = (data[0][:1], data[1][:1])
    seen = np.unique(data[1][0])
    kept = [(data[1][0][1:] == label).sum() / (data[1][0] == label).sum() for label in seen]
    assert segmenter.mean_iou(Oracle(), first) == pytest.approx(100 * sum(kept) / (len(seen) + 1))


@pytest.mark.slow
def test_a_training_resumed_from_its_checkpoint_ends_where_an_uninterrupted_one_does(data, tmp_path):
    write_cache(tmp_path / "cache", data)
    checkpoint, job = tmp_path / "cache" / "segmenter" / CHECKPOINT, segmenter.SegmenterJob(TINY, data)
    job.update(0)
    checkpoint.parent.mkdir()
    save(job, checkpoint, 1)
    for step in (1, 2):
        job.update(step)
    out = tmp_path / "out.safetensors"
    segmenter.train(TINY, out, tmp_path / "cache", 5, 1, compiled=False, held_out=8)
    resumed = torch.load(checkpoint, weights_only=True)
    assert resumed["step"] == 3
    state = job.model.state_dict()
    assert all(torch.equal(value, resumed["job"]["model"][name]) for name, value in state.items())
    written = load_file(out)
    assert all(torch.equal(value.half(), written[name]) for name, value in state.items())
    with pytest.raises(RequestError, match=r"another training: recipe.lr was .* and is now 1.0"):
        segmenter.train(replace(TINY, lr=1.0), out, tmp_path / "cache", 5, 1, compiled=False, held_out=8)


def test_training_on_the_same_scenes_again_and_again_lowers_the_loss(data):
    recipe = replace(TINY, joint_steps=5, batch_size=8)
    job = segmenter.SegmenterJob(recipe, data)
    losses = [job.update(step)["loss"] for step in range(recipe.steps)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.7 * losses[0]


def test_the_frozen_encoder_stays_the_classifiers_and_then_learns(data):
    job = segmenter.SegmenterJob(TINY, data)
    classifier, _ = load_model("scenes_vit", "embedded")
    kept = {name: value for name, value in classifier.state_dict().items() if not name.startswith("head.")}
    job.update(0)
    backbone = job.model.backbone
    assert backbone.state_dict().keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in backbone.state_dict().items())
    job.update(1)
    assert not torch.equal(backbone.blocks[0].mlp.fc1.weight, kept["blocks.0.mlp.fc1.weight"])


def test_a_snapshot_is_made_with_every_checkpoint_and_the_log_has_what_was_noted(data, tmp_path):
    job, snapshots = segmenter.SegmenterJob(TINY, data), []
    train(job, tmp_path, Progress(quiet=True), every=2, log_every=1, saved=snapshots.append)
    assert snapshots == [2, 3]
    with (tmp_path / METRICS).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert all(0 <= float(row["object_pixels"]) <= 1 for row in rows)


def test_a_gradient_that_is_no_number_stops_the_training_and_changes_nothing(data):
    job = segmenter.SegmenterJob(TINY, data)
    with torch.no_grad():
        job.model.decoder.mask_norm.bias.fill_(torch.inf)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    with pytest.raises(Diverged, match="the gradient is nan in update 1"):
        job.update(0)
    assert all(torch.equal(value, before[name]) for name, value in job.model.state_dict().items())
