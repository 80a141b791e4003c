"""Scores are those of mmsegmentation's IoUMetric over the whole set, and remain exact where its float32 sums do not."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from suite.contract.task import Score
from suite.errors import RequestError
from suite.stats import jackknife_interval
from suite.stats.areas import AREAS, dense_areas, mean_accuracy, mean_iou, pixel_accuracy
from tasks.scenes.generator import draw_scene, scene_mask
from tasks.scenes.masks import ScenesSeg
from tasks.segmentation_scoring import COLUMNS, class_areas, iou_metric, metrics
from tests.segmented import areas_row

NAMES = {"miou": "mIoU", "aacc": "aAcc", "macc": "mAcc"}
IGNORED = 255


def random_masks(seed: int, images: int, num_classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prediction, truth) of several sizes, half right; a tenth is ignored, the last two classes never occur."""
    draw = np.random.default_rng(seed)
    masks = []
    for _ in range(images):
        size = tuple(draw.integers(1, 60, 2))
        truth = draw.integers(0, num_classes - 2, size)
        prediction = np.where(draw.random(size) < 0.5, truth, draw.integers(0, num_classes - 2, size))
        masks.append((prediction, np.where(draw.random(size) < 0.1, IGNORED, truth)))
    return masks


def table(masks: list[tuple[np.ndarray, np.ndarray]], num_classes: int) -> pd.DataFrame:
    return pd.DataFrame([areas_row(*pair, num_classes) for pair in masks])


def of_iou_metric(masks: list[tuple[np.ndarray, np.ndarray]], num_classes: int) -> dict[str, float]:
    """What IoUMetric itself says of the whole set, in per cent with two decimals."""
    metric = iou_metric()()
    metric.dataset_meta = {"classes": [str(i) for i in range(num_classes)]}
    for prediction, truth in masks:
        maps = {"pred_sem_seg": torch.from_numpy(prediction), "gt_sem_seg": torch.from_numpy(truth)}
        metric.process({}, [{name: {"data": mask[None].long()} for name, mask in maps.items()}])
    return metric.compute_metrics(metric.results)


def as_printed(found: dict[str, float]) -> dict[str, float]:
    return {NAMES[name]: np.round(np.float32(value) * 100, 2) for name, value in found.items()}


@pytest.mark.parametrize("seed", range(8))
def test_random_masks_with_ignored_labels_score_what_ioumetric_says_of_the_whole_set(seed):
    num_classes = (2, 5, 49, 150)[seed % 4] + 2
    masks = random_masks(seed, 12, num_classes)
    found = scores(table(masks, num_classes), num_classes)
    assert as_printed({name: score.value for name, score in found.items()}) == of_iou_metric(masks, num_classes)


def test_scenes_score_what_ioumetric_says_of_the_whole_set():
    truths = [scene_mask("test", i) for i in range(20)]
    masks = [(np.roll(truth, (3, 5), axis=(0, 1)), truth) for truth in truths]  # partly right
    found = scores(table(masks, 49), 49)
    assert as_printed({name: score.value for name, score in found.items()}) == of_iou_metric(masks, 49)
    assert 0.1 < found["miou"].value < 0.9


def test_the_mask_of_a_scene_needs_no_painting():
    for split in ("train", "val", "test"):
        assert all((scene_mask(split, i) == draw_scene(split, i).mask).all() for i in range(10))


def test_a_class_that_occurs_nowhere_is_left_out_and_one_that_is_only_predicted_counts_as_wrong():
    truth = np.array([[0, 0, 1, IGNORED]])
    assert scores(table([(np.array([[0, 0, 1, 2]]), truth)], 4), 4)["miou"].value == 1  # 2 is predicted where ignored
    found = scores(table([(np.array([[0, 2, 1, 2]]), truth)], 4), 4)
    assert found["miou"].value == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["macc"].value == pytest.approx((1 / 2 + 1) / 2)  # no pixel is labelled 2
    assert found["aacc"].value == pytest.approx(2 / 3)


def test_areas_are_whole_numbers_of_the_classes_that_are_seen_and_survive_the_store():
    masks = random_masks(0, 5, 9)
    rows = table(masks, 9)
    for (prediction, truth), row in zip(masks, rows.to_dict("records"), strict=True):
        known = truth != IGNORED
        for position, label in enumerate(row["classes"]):
            assert row["labelled"][position] == np.count_nonzero(truth == label)
            assert row["predicted"][position] == np.count_nonzero((prediction == label) & known)
            assert row["intersection"][position] == np.count_nonzero((prediction == label) & (truth == label))
        assert sum(row["predicted"]) == sum(row["labelled"]) == np.count_nonzero(known)
    stored = pa.Table.from_pandas(rows, schema=pa.schema(COLUMNS)).to_pandas()
    assert (dense_areas(stored, 9) == dense_areas(rows, 9)).all()
    assert dense_areas(rows, 9).dtype == np.int64


@pytest.mark.parametrize("num_classes", [1, 2, 49, 150, 255])
def test_the_areas_of_an_image_are_those_of_intersect_and_union(num_classes):
    for prediction, truth in random_masks(num_classes, 5, num_classes + 2):
        said, true = (torch.from_numpy(mask.astype(np.uint8)) for mask in (prediction, truth))
        both, _, predicted, labelled = iou_metric().intersect_and_union(said, true, num_classes, IGNORED)
        found = class_areas(said, true, num_classes)
        assert found.dtype == torch.int64
        assert torch.equal(found, torch.stack([both, predicted, labelled]).long())


def test_sums_that_lose_pixels_in_float32_lose_none_here():
    """64 images of 2^24 right pixels and 20000 with 60 wrong ones: no sum of the latter moves 2^30 in float32."""
    large = {"classes": [0], "intersection": [2**24], "predicted": [2**24], "labelled": [2**24]}
    small = {"classes": [0, 1], "intersection": [0, 0], "predicted": [60, 0], "labelled": [0, 60]}
    rows = pd.DataFrame([large] * 64 + [small] * 20_000)
    areas = dense_areas(rows, 2)
    right, wrong = 64 * 2**24, 60 * 20_000
    assert metrics(areas.sum(axis=0))["miou"] == right / (right + wrong) / 2
    metric = iou_metric()()
    metric.dataset_meta = {"classes": ["wall", "sky"]}
    both, predicted, labelled = torch.from_numpy(areas).float().unbind(1)
    metric.results = list(zip(both, predicted + labelled - both, predicted, labelled, strict=True))
    said = metric.compute_metrics(metric.results)["mIoU"]
    assert said == 50.0  # as if nothing were wrong
    assert round(100 * metrics(areas.sum(axis=0))["miou"], 2) == 49.94


def test_metrics_of_many_sums_are_those_of_each():
    sums = np.stack([dense_areas(table(random_masks(seed, 3, 7), 7), 7).sum(axis=0) for seed in range(5)])
    many = {"miou": mean_iou(sums), "aacc": pixel_accuracy(sums), "macc": mean_accuracy(sums)}
    for position, one in enumerate(sums):
        for name, value in metrics(one).items():
            assert many[name][position] == pytest.approx(value, rel=1e-12)


def scores(rows: pd.DataFrame, num_classes: int) -> dict[str, Score]:
    task = ScenesSeg(limit=1)
    task.num_classes = num_classes
    [(_, summary)] = task.summaries({"cell": rows})
    return summary.scores


def test_intervals_come_from_leaving_out_each_image_in_turn():
    rows = table(random_masks(1, 9, 5), 5)
    areas, found = dense_areas(rows, 5), scores(rows, 5)
    without = [metrics(np.delete(areas, image, axis=0).sum(axis=0)) for image in range(9)]
    for name, score in found.items():
        pseudo = 9 * score.value - 8 * np.array([one[name] for one in without])
        assert (score.low, score.high) == pytest.approx(jackknife_interval(score.value, pseudo))
        assert score.low < score.value < score.high


def test_images_without_a_labelled_pixel_take_part():
    nothing = (np.zeros((2, 2), int), np.full((2, 2), IGNORED))
    assert areas_row(*nothing, 3) == {"classes": [], **{name: [] for name in AREAS}}
    some = scores(table([nothing, (np.array([[0, 1]]), np.array([[0, 0]]))], 3), 3)
    assert some["aacc"].value == 0.5
    assert (some["aacc"].low, some["aacc"].high) == (None, None)  # one image does not say how far others would be


def test_without_mmsegmentation_one_line_says_what_to_install(monkeypatch):
    iou_metric.cache_clear()
    monkeypatch.setitem(sys.modules, "mmseg.evaluation", None)
    with pytest.raises(
        RequestError, match=r"cannot be imported .*pip install 'reducerbench\[segmentation\]'"
    ) as caught:
        iou_metric()
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert iou_metric().__name__ == "IoUMetric"
