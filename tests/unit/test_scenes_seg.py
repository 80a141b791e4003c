"""Masks of the embedded scenes: the truth is what is drawn, and a run scores every method without any data."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from suite.api import run
from suite.backbones.segmenter import RESTORE as OF_THE_MODEL
from suite.errors import RequestError
from suite.models.random_weights import build_random
from suite.models.registry import find_entry
from suite.sweep.progress import Progress
from tasks.scenes.captions import ScenesCaption
from tasks.scenes.generator import CLASS_NAMES, draw_scene
from tasks.scenes.masks import ScenesSeg
from tasks.segmentation import RESTORE, WindowScores
from tasks.windows import SlidingWindows

WINDOWS = SlidingWindows(112, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def scenes() -> ScenesSeg:
    return ScenesSeg(limit=4)


def test_scenes_are_those_of_the_other_tasks_and_their_masks_are_what_is_drawn(scenes):
    assert [sample.id for sample in scenes.samples] == [sample.id for sample in ScenesCaption(limit=4).samples]
    for sample in scenes.samples:
        drawn = draw_scene("test", int(sample.id.split("/")[1]))
        assert (scenes.truth(sample) == drawn.mask).all()
        assert scenes.truth(sample).dtype == np.int64
        assert (np.asarray(scenes.image(sample)) == drawn.image).all()
        assert scenes.size(sample) == drawn.mask.shape
        assert scenes.load(sample, WINDOWS).shape == (1, 3, 112, 112)
        names = {scenes.class_names[label] for label in np.unique(drawn.mask)}
        assert names == {"background", *(f"{thing.colour} {thing.shape}" for thing in drawn.objects)}
    assert scenes.windows_per_image(112) == 1


def test_there_are_300_scenes_of_49_classes_and_more_on_demand():
    assert len(ScenesSeg().samples) == 300
    assert [sample.id for sample in ScenesSeg(scenes=2, split="val").samples] == ["val/00000", "val/00001"]
    assert ScenesSeg.class_names == ("background", *CLASS_NAMES)
    assert ScenesSeg.num_classes == len(ScenesSeg.class_names) == 49
    labels = [sample.label for sample in ScenesSeg().samples]
    assert len(set(labels)) == 300
    assert json.loads(json.dumps(labels)) == labels  # part of what a run is known by


def test_colours_are_apart_and_those_of_the_objects(scenes):
    palette = np.array(scenes.palette)
    assert palette.shape == (49, 3)
    assert ((palette >= 0) & (palette <= 255)).all()
    distance = np.abs(palette[:, None] - palette[None]).sum(axis=2) + 1000 * np.eye(49, dtype=int)
    assert distance.min() >= 10
    for colour, strongest in (("red", 0), ("green", 1), ("blue", 2)):
        of = [i for i, name in enumerate(scenes.class_names) if name.startswith(colour)]
        assert (palette[of].argmax(axis=1) == strongest).all()


def test_a_perfect_and_a_shifted_answer_score_what_they_are_worth(scenes):
    truths = torch.stack([torch.from_numpy(scenes.truth(sample)) for sample in scenes.samples])
    perfect = torch.nn.functional.one_hot(truths, 49).permute(0, 3, 1, 2).float()
    rows = scenes.score(WindowScores(perfect, 112), scenes.samples)
    assert all(row["intersection"] == row["predicted"] == row["labelled"] for row in rows)
    shifted = scenes.score(WindowScores(perfect.roll(1, dims=1), 112), scenes.samples)
    assert not any(pixels for row in shifted for pixels in row["intersection"])
    assert scenes.score(WindowScores(perfect, 112), scenes.samples) == rows


def test_a_task_that_goes_to_workers_reads_the_same(scenes):
    other = pickle.loads(pickle.dumps(scenes))
    assert all(torch.equal(other.load(s, WINDOWS), scenes.load(s, WINDOWS)) for s in scenes.samples)


def test_the_embedded_model_fits_and_others_are_refused(scenes):
    model = build_random(find_entry("scenes_segmenter"))
    scenes.check_model(model)
    assert scenes.preprocessing(model) == WINDOWS
    with pytest.raises(RequestError, match="image_size=224: the model takes windows of 112 pixels"):
        scenes.preprocessing(model, 224)
    with pytest.raises(RequestError, match="data 'x': task 'scenes-seg' draws its own pictures"):
        ScenesSeg("x")
    assert tuple(OF_THE_MODEL) == RESTORE


@pytest.mark.slow
def test_a_sweep_of_random_weights_runs_to_the_end_with_a_table_of_what_it_costs(tmp_path):
    spec = {
        "task": "scenes-seg",
        "limit": 6,
        "checkpoint": "none",
        "reducers": ["tome", "evit"],
        "rates": ["merge=0.3", "merge=0.6"],
        "batch_size": 3,
        "device": "cpu",
        "workers": 0,
        "speed": False,
        "out": str(tmp_path / "run"),
    }
    results = run(spec, progress=Progress(quiet=True))
    assert not results.failed
    frame = results.frame()
    assert frame.samples.tolist() == [6] * 5
    assert frame.decoder_gmacs.nunique() == 1  # tokens are given back before it
    assert (frame.image_gmacs.round(9) == (frame.gmacs + frame.decoder_gmacs).round(9)).all()
    table = (results.out / "report" / "table.md").read_text()
    assert "Decoder GFLOPs" in table
    assert "GFLOPs per image" in table
