"""How masks are taught: crops that keep image and mask together, and the loss of pixels."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from taught import PLAIN, batch_of, make_segmenter, scene_masks, seed

from suite.contract.task import ReadError
from suite.train.objective import Examples
from suite.train.objectives.segmentation import Segmentation, cropped
from suite.train.photometric import distorted
from suite.train.recipe import Recipe
from tasks.ade20k.task import Ade20k
from tasks.reading.masks import IGNORED
from tests.segmented import FOLDER, encoded, name_of
from tests.segmented import ade20k as ade20k_files
from tests.segmented import write as write_masks


def test_the_loss_of_masks_is_the_mean_over_the_pixels_that_have_a_class():
    model, objective = scene_masks()
    batch = batch_of(objective)
    masks = batch.targets.long()
    masks[:, :10] = IGNORED
    masks[2] = IGNORED
    with torch.no_grad():
        logits = model(batch.images).double().log_softmax(1)
        terms = [
            -logits[i, masks[i, y, x], y, x]
            for i in range(3) for y in range(32) for x in range(32) if masks[i, y, x] != IGNORED
        ]  # fmt: skip
        assert len(terms) == 2 * 22 * 32
        loss = objective.loss(model, Examples(batch.images, masks, batch.ids))
        assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
        assert objective.loss(model, batch).item() != pytest.approx(loss.item(), rel=1e-3)


def test_masks_without_any_class_teach_nothing():
    model, objective = scene_masks()
    batch = batch_of(objective)
    model = copy.deepcopy(model)
    loss = objective.loss(model, Examples(batch.images, torch.full_like(batch.targets, IGNORED), batch.ids))
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_without_crops_a_scene_is_what_evaluation_sees_or_its_mirror_image():
    _, objective = scene_masks()
    sample, seen = objective.task.samples[0], set()
    places = ((np.arange(32) + 0.5) * 112 / 32).astype(int)
    truth = objective.task.read_truth(sample)[places][:, places]
    (window,) = objective.task.load(sample, objective.preprocessing)
    for number in range(12):
        seed(number)
        image, mask = objective.example(sample)
        mirrored = not torch.allclose(image, window, atol=1e-2)
        seen.add(mirrored)
        torch.testing.assert_close(image.flip(-1) if mirrored else image, window, atol=1e-2, rtol=0)
        assert mask.dtype == torch.uint8
        assert np.array_equal(mask.flip(-1) if mirrored else mask, truth)
    assert seen == {False, True}


GREY = 50  # steps of grey per class


def coded(tmp_path, sizes=((90, 70), (64, 150), (40, 40))):
    """A data set whose pictures say in grey what class a pixel has: label k of 1 to 5 is painted 50 (k - 1)."""
    files = ade20k_files(sizes=sizes)
    for number, (width, height) in enumerate(sizes, start=1):
        labels = np.random.default_rng(number).integers(1, 6, (19, 19), dtype=np.uint8)
        labels = np.kron(labels, np.ones((16, 16), dtype=np.uint8))[:height, :width]
        grey = Image.fromarray((labels - 1) * GREY).convert("RGB")
        files[f"{FOLDER}/annotations/validation/{name_of(number)}.png"] = encoded(labels, "PNG")
        files[f"{FOLDER}/images/validation/{name_of(number)}.jpg"] = encoded(grey, "JPEG")
    return Ade20k(str(write_masks(tmp_path, files)), reduce_zero_label=True)


def disagreement(image, mask):
    """Share of pixels in the midst of a class whose colour is not the class's."""
    inner = torch.ones(mask.shape, dtype=torch.bool)
    for shift in ((dy, dx) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2)):
        inner &= mask == mask.roll(shift, (0, 1))
    inner[:2] = inner[-2:] = inner[:, :2] = inner[:, -2:] = False
    inner &= mask != IGNORED
    assert inner.any()
    painted = (image.mean(0) * 0.5 + 0.5) * 255
    return ((painted - GREY * mask.float()).abs()[inner] > 15).float().mean().item()


@pytest.mark.parametrize("crop", [True, False])
def test_an_image_and_its_mask_are_resized_cropped_and_mirrored_alike(tmp_path, crop):
    task = coded(tmp_path)
    objective, found, shifted, padded = Segmentation(task, make_segmenter(150), Recipe(crop=crop, jitter=0)), [], [], 0
    for number in range(40):
        seed(number)
        image, mask = objective.example(task.samples[number % 3])
        assert image.shape == (3, 32, 32)
        assert mask.shape == (32, 32)
        outside = mask == IGNORED
        padded += outside.any().item()
        assert not image[:, outside].any()
        if (mask != mask.roll(1, 1)).any():
            found.append(disagreement(image, mask))
            shifted.append(disagreement(image, mask.roll(6, 0)))
    assert max(found) < 0.1
    assert np.mean(found) < 0.01
    assert np.mean(shifted) > 0.1
    assert (padded > 0) == crop  # an image made smaller than the window


def test_colours_are_distorted_with_crops_alone_and_never_the_mask(tmp_path):
    task = coded(tmp_path)
    examples = {}
    for recipe in (Recipe(crop=True, jitter=0), Recipe(crop=True, jitter=0.4)):
        objective = Segmentation(task, make_segmenter(150), recipe)
        examples[recipe.jitter] = []
        for number in range(8):
            seed(number)
            examples[recipe.jitter].append(objective.example(task.samples[0]))
    pairs = list(zip(examples[0], examples[0.4], strict=True))
    assert all(torch.equal(plain[1], changed[1]) for plain, changed in pairs)
    assert 0 < sum(not torch.equal(plain[0], changed[0]) for plain, changed in pairs) <= 8


def test_distorted_colours_stay_colours_and_grey_stays_grey():
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 16, 16), generator=draw).float()
    grey = image[:1].expand(3, -1, -1)
    changed = set()
    for number in range(30):
        seed(number)
        result = distorted(image.clone())
        assert result.shape == image.shape
        assert result.dtype == torch.float32
        assert 0 <= result.min() <= result.max() <= 255
        changed.add(round((result - image).abs().mean().item(), 2))
        seed(number)
        result = distorted(grey.clone())
        assert (result - result[:1]).abs().max() <= 1
    assert len(changed) > 15
    assert 0.0 in changed  # no coin fell


def test_a_crop_shows_several_classes_where_there_are_some():
    mask = torch.full((320, 320), 3, dtype=torch.uint8)
    mask[150:230, 150:230] = 7
    image, mixed = torch.zeros(3, 320, 320), {}
    for tries in (1, 10):
        seed(0)
        found = [cropped(image, mask, 64, tries)[1].flatten() for _ in range(60)]
        mixed[tries] = np.mean([max((part == label).float().mean() for label in (3, 7)) < 0.75 for part in found])
    assert mixed[1] < 0.2
    assert mixed[10] > 2 * mixed[1] > 0


def test_a_mask_of_another_size_than_its_image_is_refused_by_name(tmp_path):
    files = ade20k_files()
    files[f"{FOLDER}/annotations/validation/{name_of(1)}.png"] = encoded(np.ones((5, 5), dtype=np.uint8), "PNG")
    task = Ade20k(str(write_masks(tmp_path, files)))
    with pytest.raises(ReadError, match="its mask 5x5"):
        Segmentation(task, make_segmenter(150), PLAIN).example(task.samples[0])


def test_the_gradient_reaches_the_pixels_loss_through_every_grid_score():
    model, objective = scene_masks()
    batch = batch_of(objective)
    scores = []
    model.decoder.register_forward_hook(lambda *parts: scores.append(parts[2]) or parts[2].retain_grad())
    try:
        objective.loss(model, batch).backward()
    finally:
        model.decoder._forward_hooks.clear()
        model.zero_grad()
    assert (scores[0].grad.abs().sum(-1) > 0).all()
