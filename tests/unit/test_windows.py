"""Windows are cut and joined as mmsegmentation's slide inference does it, at every size of an image."""

from __future__ import annotations

import pickle
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmcv.image import imrescale, rescale_size
from PIL import Image

import tasks.windows as windows
from suite.errors import RequestError
from tasks.reading.images import TimmPreprocessing, UnreadableImage
from tasks.scenes.generator import draw_scene
from tasks.windows import SlidingWindows, class_map, num_windows, resized_size

SIDE = 32
WINDOWS = SlidingWindows(SIDE, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
# (height, width): one window, two that do not overlap, two and three that do, resized both ways, padded, one pixel
SIZES = ((32, 32), (32, 64), (32, 40), (90, 32), (48, 64), (20, 25), (300, 200), (20, 400), (1, 1), (1, 9))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def slide(scores: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """mmsegmentation's `slide_inference` and `postprocess_result`, (K, height, width), for scores of its crops.

    Where an image is smaller than the crop, scores of the padded crop are cut first.
    """
    rows, columns = resized_size(height, width, SIDE)
    views = iter(F.interpolate(scores, (SIDE, SIDE), mode="bilinear", align_corners=False))
    total, count = torch.zeros(scores.shape[1], rows, columns), torch.zeros(1, rows, columns)
    for row in range(max(rows - SIDE + SIDE - 1, 0) // SIDE + 1):
        for column in range(max(columns - SIDE + SIDE - 1, 0) // SIDE + 1):
            bottom, right = min(row * SIDE + SIDE, rows), min(column * SIDE + SIDE, columns)
            top, left = max(bottom - SIDE, 0), max(right - SIDE, 0)
            view = next(views)[:, : bottom - top, : right - left]
            total += F.pad(view, (left, columns - right, top, rows - bottom))
            count[:, top:bottom, left:right] += 1
    assert (count > 0).all()
    assert next(views, None) is None
    return F.interpolate((total / count)[None], (height, width), mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("size", SIZES)
def test_joined_scores_give_the_masks_of_mmsegmentations_slide_inference(size):
    torch.manual_seed(0)
    scores = torch.randn(num_windows(*size, SIDE), 7, 4, 4)
    expected = slide(scores, *size)
    found = class_map(scores, *size, SIDE)
    assert found.shape == size
    assert found.dtype == torch.uint8
    best, second = expected.topk(2, dim=0).values
    clear = best - second > 1e-5  # closer ones are decided by rounding
    assert clear.float().mean() > 0.99 or clear.all()
    assert torch.equal(found.long()[clear], expected.argmax(dim=0)[clear])


@pytest.mark.parametrize("size", SIZES)
def test_windows_are_the_parts_of_the_image_as_mmcv_resizes_it(size):
    image = picture(*size)
    views = WINDOWS(image)
    assert views.shape == (num_windows(*size, SIDE), 3, SIDE, SIDE)
    assert views.dtype == torch.float32
    resized = torch.from_numpy(imrescale(np.asarray(image), (4 * SIDE, SIDE))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (WINDOWS.mean, WINDOWS.std))
    normalised = (resized - mean) / std
    rows, columns = normalised.shape[1:]
    found = iter(views)
    for top in sorted({min(y, max(rows - SIDE, 0)) for y in range(0, rows, SIDE)}):
        for left in sorted({min(x, max(columns - SIDE, 0)) for x in range(0, columns, SIDE)}):
            view, part = next(found), normalised[:, top : top + SIDE, left : left + SIDE]
            assert torch.allclose(view[:, : part.shape[1], : part.shape[2]], part, atol=1e-6)
            assert not view[:, part.shape[1] :].any()  # padding is zero: the mean colour
            assert not view[:, :, part.shape[2] :].any()
    assert next(found, None) is None


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from((32, 112, 512, 640)))
@settings(max_examples=300, deadline=None)
def test_sizes_are_mmcvs_and_every_pixel_lies_in_a_window(height, width, side):
    expected = rescale_size((width, height), (4 * side, side))[::-1]
    assume(all(expected))
    assert resized_size(height, width, side) == expected
    assert 1 <= num_windows(height, width, side) <= 4
    for length in expected:
        starts = windows._starts(length, side)
        assert starts == sorted(set(starts))
        assert starts[0] == 0
        assert starts[-1] == max(length - side, 0)
        assert all(b - a <= side for a, b in pairwise(starts))


def test_an_image_of_which_nothing_would_be_left_is_refused():
    with pytest.raises(UnreadableImage, match="aspect ratio 3000:1 leaves nothing"):
        WINDOWS(picture(1, 3000))


def test_overlapping_scores_are_averaged_and_ties_go_to_the_first_class():
    scores = torch.zeros(2, 3, 4, 4)
    scores[0, 0], scores[1, 1], scores[:, 2] = 4, 3, 2.5
    mask = class_map(scores, SIDE, SIDE + 8, SIDE)  # windows share columns 8..31
    assert mask[:, :8].unique().tolist() == [0]
    assert mask[:, 8:SIDE].unique().tolist() == [2]
    assert mask[:, SIDE:].unique().tolist() == [1]
    assert class_map(torch.ones(1, 3, 4, 4), SIDE, SIDE, SIDE).unique().tolist() == [0]


def test_how_many_classes_are_resized_at_once_changes_nothing(monkeypatch):
    torch.manual_seed(0)
    scores = torch.randn(2, 150, 4, 4)
    scores[:, 100] = scores[:, 20]  # equal in different parts
    masks = []
    for at_once in (2**27, 50 * 70 * 16, 1):
        monkeypatch.setattr(windows, "AT_ONCE", at_once)
        masks.append(class_map(scores, 50, 70, SIDE))
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    assert 100 not in masks[0]


def test_scores_of_half_precision_are_joined_in_float32():
    torch.manual_seed(0)
    scores = torch.randn(2, 5, 4, 4).half()
    assert torch.equal(class_map(scores, 50, 70, SIDE), class_map(scores.float(), 50, 70, SIDE))


def test_a_scene_is_one_window_and_prepared_as_timm_does():
    scene = Image.fromarray(draw_scene("test", 0).image)
    (view,) = SlidingWindows(112, (0.5,) * 3, (0.5,) * 3)(scene)
    timm = TimmPreprocessing((3, 112, 112), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, "center")
    assert torch.equal(view, timm(scene))


def test_windows_are_what_the_model_says_and_compare_as_values():
    config = {"input_size": (3, 64, 64), "mean": [0.5, 0.5, 0.5], "std": (0.25, 0.25, 0.25)}
    model = SimpleNamespace(pretrained_cfg=config)
    found = SlidingWindows.of(model)
    assert found == SlidingWindows(64, (0.5,) * 3, (0.25,) * 3) == SlidingWindows.of(model, 64)
    assert pickle.loads(pickle.dumps(found)) == found
    assert len({found, SlidingWindows.of(model)}) == 1
    with pytest.raises(RequestError, match="image_size=128: the model takes windows of 64 pixels"):
        SlidingWindows.of(model, 128)
    with pytest.raises(RequestError, match="windows of 64x32; only square ones"):
        SlidingWindows.of(SimpleNamespace(pretrained_cfg={**config, "input_size": (3, 32, 64)}))


@pytest.mark.parametrize("size", [(32, 32), (32, 75), (75, 32)])
def test_pictures_of_windows_join_to_the_image(size):
    image = picture(*size)
    pictures = [WINDOWS.picture(view) for view in WINDOWS(image)]
    assert (WINDOWS.joined_pictures(pictures, *size) == np.asarray(image)).all()
    larger = WINDOWS.joined_pictures(pictures, 2 * size[0], 2 * size[1])
    assert (larger[::2, ::2] == np.asarray(image)).all()
