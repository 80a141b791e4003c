"""A score that is undefined for lack of samples, classes, references or words is n/a with the reason, everywhere."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from reports.frame import load_frame
from reports.groups import groups
from reports.page.write import render
from reports.pareto.resamples import resampled_scores
from reports.tables.results import write_tables
from suite.contract.metric import Metric, Need, TaskReport
from suite.contract.task import Score
from suite.gate.check import check
from suite.gate.compare import compare
from suite.gate.render import headline, markdown
from suite.stats.aggregates import Share
from tasks import list_tasks, task_class
from tasks.caption_scoring.scorer import CaptionScorer, CaptionScores
from tasks.captioning import CaptioningTask
from tasks.reading.masks import IGNORED
from tasks.scenes.captions import ScenesCaption
from tasks.scenes.masks import ScenesSeg
from tests.segmented import areas_row
from tests.unit import run_folder
from tests.unit.gate_runs import identified
from tests.unit.run_folder import make_captions, rewrite, start_run, write_cell, write_samples

ALONE = "CIDEr needs at least 2 images"


@pytest.mark.parametrize("name", list_tasks())
def test_every_metric_says_what_it_is_undefined_without(name):
    for metric in task_class(name).shown.metrics:
        counted = {need.counted: need.least for need in metric.needs}
        assert metric.undefined(counted) == ""
        for need in metric.needs:
            assert metric.undefined(counted | {need.counted: need.least - 1}).endswith(f"at least {need.words}")
        assert counted


def test_what_a_metric_needs_and_is_made_of_is_stored_with_a_run():
    shown = TaskReport((Metric("top5", "Top-5 (%)", Share("correct5"), needs=(Need("classes", 6, "6 classes"),)),))
    stored = json.loads(json.dumps(shown.as_dict()))
    assert TaskReport.from_dict(stored) == shown
    assert shown.metrics[0].undefined({"classes": 5}) == "Top-5 needs at least 6 classes"


def summary_of(images: int, words: list[int], telling: int):
    """What captions of so many words come to, whose scores pycocoevalcap gives as 0."""
    task, ids = ScenesCaption(limit=images), [str(i) for i in range(len(words))]
    names = [metric.name for metric in task.shown.metrics if metric.name != "length"]
    counts = {f"{kind}_{n}": [max(0, k - n + 1) for k in words] for kind in ("guess", "correct") for n in range(1, 5)}
    table = pd.DataFrame({"id": ids, **dict.fromkeys(names, 0.0), "testlen": words, "reflen": words, **counts})
    rows = pd.DataFrame({"id": ids, "prediction": "a", "tokens": [[1]] * len(ids)})
    return task.summary(CaptionScores(dict.fromkeys(names, 0.0), table, {}, telling), rows)


@pytest.mark.parametrize(
    ("images", "words", "telling", "undefined"),
    [
        (1, [5], 0, {"cider": ALONE}),
        (2, [5], 9, {}),  # one of two images has a caption, and document frequencies are those of both
        (2, [5, 5], 0, {"cider": "CIDEr needs at least 1 n-gram that not all images' references have"}),
        (2, [3, 1], 9, {"bleu_4": "B@4 needs at least 1 caption of 4 words"}),
        (2, [0, 1], 9, {f"bleu_{n}": f"B@{n} needs at least 1 caption of {n} words" for n in (2, 3, 4)}),
        (2, [0, 4], 9, {}),
    ],
)
def test_caption_scores_without_images_to_tell_apart_or_words_enough_have_no_value(images, words, telling, undefined):
    summary = summary_of(images, words, telling)
    absent = {name: score for name, score in summary.scores.items() if score.value is None}
    assert absent == {name: Score(None, reason=reason) for name, reason in undefined.items()}
    assert not undefined.keys() & set(summary.samples)  # so that nothing can be computed from single images either


@pytest.mark.parametrize(("references", "some"), [(["a red dog"] * 2, False), (["a red dog", "a big cat"], True)])
def test_the_scorer_counts_the_ngrams_that_tell_images_apart(references, some):
    references = {str(i): [text] for i, text in enumerate(references)}
    with CaptionScorer(references, metrics=("cider",), timeout_s=120) as scorer:
        ((_, result),) = scorer.score({"cell": {"0": "a red dog", "1": "a dog"}})
    assert (result.telling_ngrams > 0) == (result.overall["cider"] > 0) == some


def test_masks_without_a_labelled_pixel_have_no_score_and_classes_that_never_occur_take_no_part():
    task, mask = ScenesSeg(limit=1), np.zeros((4, 4), np.uint8)
    areas = {
        "unlabelled": areas_row(mask, np.full_like(mask, IGNORED), task.num_classes),
        "one class": areas_row(mask, mask, task.num_classes),
    }
    found = dict(task.summaries({name: pd.DataFrame([row]) for name, row in areas.items()}))
    assert found["unlabelled"].scores == {
        name: Score(None, reason=f"{label} needs at least 1 labelled pixel")
        for name, label in (("miou", "mIoU"), ("aacc", "aAcc"), ("macc", "mAcc"))
    }
    assert {score.value for score in found["one class"].scores.values()} == {1.0}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A run of captions on a single image."""
    monkeypatch.setattr(run_folder, "N", 1)
    out = start_run(tmp_path / "run", 1)
    for reducer, rate, cut in (("none", "", 0.0), ("tome", "r=8", 0.3), ("evit", "r=8", 0.3)):
        write_cell(out, reducer, rate, cut=cut)
    make_captions(out)
    write_samples(out / "manifest.parquet", pa.table({"id": run_folder.sample_ids(1), "label": [["a dog"]]}))
    rewrite(out / "run.json", shown=CaptioningTask.shown.as_dict())
    none = {"value": None, "low": None, "high": None}
    scores = {metric.name: none | {"value": 0.4, "reason": ""} for metric in CaptioningTask.shown.metrics}
    for cell in (out / "cells").iterdir():
        rewrite(cell / "scores.json", scores=scores | {"cider": none | {"reason": ALONE}})
        write_samples(cell / "scores.parquet", pa.table({"id": run_folder.sample_ids(1), "rouge_l": [0.4]}))
    return identified(out)


def test_table_page_and_resamples_of_a_run_on_one_image_say_why_its_headline_is_missing(alone, tmp_path):
    frame = load_frame(alone)
    assert frame.cider.isna().all()
    write_tables(frame, tmp_path / "tables")
    assert f"n/a: {ALONE}." in (tmp_path / "tables" / "table.md").read_text(encoding="utf-8")
    assert f"n/a: {ALONE}." in render(alone, frame)[0]
    (group,) = groups(frame)
    assert resampled_scores(group) == {}


def test_the_gate_cannot_tell_by_a_score_that_is_undefined_and_says_why(alone):
    report = check(f"{alone}:tome", f"{alone}:evit", {})
    assert headline(report).startswith(f"cannot tell: tome against evit at r=8: {ALONE}")
    assert f"CIDEr n/a: {ALONE}" in markdown(compare(f"{alone}:tome", f"{alone}:evit"))


def test_a_single_sample_has_no_resamples(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "N", 1)
    out = start_run(tmp_path / "run", 1)
    write_cell(out, "none")
    (group,) = groups(load_frame(out))
    assert resampled_scores(group) == {}
