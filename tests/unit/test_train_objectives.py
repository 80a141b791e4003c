"""What captioning and segmentation have in common: whom the gradient reaches, that examples repeat, and pictures."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from cold_dtem import COLD, HardTwin
from PIL import Image
from taught import batch_of, scene_captions, scene_masks, seed
from timm.data import auto_augment

from suite import attach
from suite.contract.task import Task
from suite.errors import RequestError
from suite.train.objective import Examples, Objective
from suite.train.objectives import objective_class
from suite.train.objectives.classification import posterize
from suite.train.picture_cache import Kept, Pictures
from suite.train.recipe import Recipe
from tasks.scenes.masks import ScenesSeg
from tasks.scenes.pictures import ScenesGeneration


@pytest.fixture
def taught(request):
    """A model of its own, and the objective."""
    model, objective = request.param()
    return copy.deepcopy(model), objective


both = pytest.mark.parametrize("taught", [scene_masks, scene_captions], indirect=True)


@both
def test_every_embedding_learns_and_what_is_frozen_does_not(taught):
    model, objective = taught
    model.requires_grad_(False)
    with attach(model, "dtem", "r=6") as handle:
        handle.reducer.train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective.loss(model, batch_of(objective))
        loss.backward()
        gradients = [layer.weight.grad for layer in handle.reducer.embeddings]
    assert loss.dtype == torch.float32
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)
    assert all(parameter.grad is None for parameter in model.parameters())


@both
@torch.no_grad()
def test_with_a_cold_choice_the_loss_of_training_is_that_of_hard_merging(taught):
    model, objective = taught
    model.double()
    batch, losses = batch_of(objective), {}
    batch = Examples(batch.images.double(), batch.targets, batch.ids)
    untouched = objective.loss(model, batch)
    for reducer in (HardTwin(), "dtem"):
        with attach(model, reducer, "r=[9,9,0,9]", **(COLD if reducer == "dtem" else {})) as handle:
            handle.reducer.train()
            losses[handle.reducer.soft] = objective.loss(model, batch)
            assert handle.token_counts[-1] == (65 if handle.reducer.soft else 38)
    torch.testing.assert_close(losses[True], losses[False], rtol=1e-5, atol=1e-5)
    assert abs(losses[True] - untouched) > 1e-3


def test_a_class_elsewhere_serves_no_task():
    class Elsewhere(Objective):
        task_class = Task

    with pytest.raises(RequestError, match="cannot be trained on"):
        objective_class(ScenesGeneration(limit=1))


@both
def test_examples_repeat_where_random_states_do_also_in_another_process(taught):
    _, objective = taught
    again = pickle.loads(pickle.dumps(objective))
    assert again.pictures.kept.bytes == 0
    cropped = copy.copy(objective)
    cropped.recipe = Recipe()
    for sample in objective.task.samples[:2]:
        for one, other in ((objective, again), (cropped, cropped)):
            seed(5)
            image, target = one.example(sample)
            seed(5)
            twin, same = other.example(sample)
            assert torch.equal(image, twin)
            assert torch.equal(target, same)


def count(reads, name):
    reads.append(name)
    return np.array([len(name)], dtype=np.int64)


def test_a_picture_is_read_once_and_is_the_tasks_own():
    task, reads = ScenesSeg(split="train", scenes=3), []
    kept = Kept(most=2 * 112 * 112 * 3)
    shown = Pictures(task, kept)
    for sample in (*task.samples, *task.samples):
        assert np.array_equal(np.asarray(shown.image(sample)), np.asarray(task.image(sample)))
    assert kept.bytes == kept.most  # the first two; there is no room for the third
    small = Kept(2 * 8)
    for name in ("a", "b", "c", "a", "b", "c"):
        assert small.get(name, partial(count, reads, name)).tolist() == [len(name)]
    assert "".join(reads) == "abc" + "c"
    assert pickle.loads(pickle.dumps(kept)).bytes == 0


def test_randaugment_runs_at_its_largest_magnitude_on_any_pillow():
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    for bits in range(9):
        assert posterize(image, bits).getpixel((0, 0))[0] in (128, 192, 200)
    assert auto_augment.NAME_TO_OP["PosterizeIncreasing"] is posterize
