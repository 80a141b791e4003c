"""Images that show several classes are scored as the libraries of the field score them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from suite.errors import RequestError
from suite.stats.average_precision import average_precision, mean_average_precision
from suite.sweep.plan import make_task
from suite.sweep.spec import RunSpec
from tests.captioned import CAPTIONS, instances, photos, write

ROUNDING = 1e-12


def drawn(n: int, classes: int, seed: int, digits: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Scores of which many are equal, and what is present."""
    draw = np.random.default_rng(seed)
    present = draw.random((n, classes)) < 0.3
    return np.round(draw.normal(size=(n, classes)) + present, digits), present


def test_average_precision_is_that_of_scikit_learn_and_torchmetrics():
    metrics = pytest.importorskip("sklearn.metrics")
    torchmetrics = pytest.importorskip("torchmetrics.classification")
    scores, present = drawn(200, 5, seed=0)
    score, _ = mean_average_precision(scores, present)
    assert score == pytest.approx(metrics.average_precision_score(present, scores, average="macro"), abs=ROUNDING)
    theirs = torchmetrics.MultilabelAveragePrecision(5, average="macro")
    in_range = torch.tensor(scores).sigmoid()  # it takes a sigmoid of logits itself, where some are above 1
    assert score == pytest.approx(float(theirs(in_range, torch.tensor(present).long())), abs=1e-6)  # its float32


def test_average_precision_is_the_precision_at_every_present_sample_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, np.array([True, False, True, False]))[0] == pytest.approx((1 + 2 / 3) / 2)
    tied = np.array([0.5, 0.5, 0.5, 0.1])
    assert average_precision(tied, np.array([True, False, False, True]))[0] == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_what_a_sample_changes_is_the_derivative_by_its_weight():
    scores, present = drawn(30, 1, seed=1)

    def weighted(weight: np.ndarray) -> float:
        above = scores[None, :, 0] >= scores[:, None, 0]
        precision = (above * present[:, 0] * weight).sum(axis=1) / (above * weight).sum(axis=1)
        own = weight * present[:, 0]
        return float((own * precision).sum() / own.sum())

    score, change = average_precision(scores[:, 0], present[:, 0])
    assert score == pytest.approx(weighted(np.ones(30)), abs=ROUNDING)
    step = 1e-5
    by_hand = [(weighted(np.ones(30) + step * e) - weighted(np.ones(30) - step * e)) / (2 * step) for e in np.eye(30)]
    np.testing.assert_allclose(change, by_hand, atol=1e-8)  # step² of a central difference
    assert change.sum() == pytest.approx(0, abs=ROUNDING)


def test_a_class_that_occurs_nowhere_is_not_in_the_mean():
    scores, present = drawn(40, 3, seed=2)
    present[:, 1] = False
    score, influence = mean_average_precision(scores, present)
    assert score == pytest.approx(np.mean([average_precision(scores[:, k], present[:, k])[0] for k in (0, 2)]))
    assert influence.mean() == pytest.approx(score, abs=ROUNDING)


@pytest.mark.slow
def test_the_spread_of_what_samples_come_to_is_that_of_the_score_over_samples():
    found = [mean_average_precision(*drawn(500, 4, seed=seed, digits=6)) for seed in range(400)]
    over_data = np.std([score for score, _ in found])
    said = np.mean([influence.std() / np.sqrt(500) for _, influence in found])
    assert said == pytest.approx(over_data, rel=0.12)  # 3.5 % is one deviation of a spread of 400


def test_classes_are_numbered_by_their_ids_and_a_crowd_counts_once(tmp_path):
    task = make_task(
        RunSpec(task="coco-multilabel", data=str(write(tmp_path, photos() | {"instances.json": instances()})))
    )
    assert task.class_names == ("train", "toothbrush")
    labels = {sample.id: sample.label for sample in task.samples}
    assert labels == {str(id): tuple(k for k, bit in enumerate((2, 1)) if id & bit) for id in CAPTIONS}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"categories": []}, "no image or no category"),
        ({"annotations": [{"image_id": 1, "category_id": 7}]}, "not both listed"),
        ({"categories": None}, "categories"),
    ],
)
def test_a_file_of_instances_that_is_wrong_is_refused_in_one_line(tmp_path, change, said):
    content = {key: value for key, value in (instances() | change).items() if value is not None}
    write(tmp_path, photos() | {"instances.json": json.dumps(content).encode()})
    with pytest.raises(RequestError, match=said) as caught:
        make_task(RunSpec(task="coco-multilabel", data=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_data_without_instances_say_what_is_lacking(tmp_path):
    with pytest.raises(RequestError, match=r"there is no instances\*\.json"):
        make_task(RunSpec(task="coco-multilabel", data=str(write(tmp_path, photos()))))
