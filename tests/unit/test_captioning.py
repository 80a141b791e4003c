"""The captioning tasks: what they ask of a model, what a caption is worth, and the scenes with their wordings."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pandas as pd
import pytest
import timm
import torch

from suite.contract.task import Sample
from suite.errors import CellError, RequestError
from suite.measure.flops import count_module
from suite.models.captioner import Captioner
from suite.models.scenes_git import build_scenes_git, build_word_tokenizer
from tasks.caption_scoring.scorer import availability
from tasks.reading.images import TimmPreprocessing
from tasks.scenes.captions import ScenesCaption
from tasks.scenes.classes import Scenes
from tasks.scenes.drawing import COLOURS, PATTERNS, SHAPES
from tasks.scenes.generator import draw_scene
from tasks.scenes.wording import describe

PLAIN = TimmPreprocessing((3, 32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, "center")


@dataclass(frozen=True)
class Said:
    text: str
    tokens: tuple[int, ...] = (5, 102)


@pytest.fixture(scope="module")
def scenes() -> ScenesCaption:
    return ScenesCaption(limit=4)


def test_scene_captions_are_those_of_the_drawn_scene_and_need_no_drawing():
    for split in ("train", "val", "test"):
        task = ScenesCaption(split=split, scenes=20)
        assert [s.label for s in task.samples] == [draw_scene(split, i).captions for i in range(20)]


def test_scenes_are_the_pictures_of_the_classification_task(scenes):
    pictures = Scenes(scenes=300, limit=4)
    assert [s.id for s in scenes.samples] == [f"test/{i:05d}" for i in (37, 112, 187, 262)]
    assert [s.id for s in pictures.samples] == [s.id for s in scenes.samples]
    assert all(torch.equal(scenes.load(s, PLAIN), pictures.load(s, PLAIN)) for s in scenes.samples)


def test_every_wording_of_every_scene_fits_into_the_tokens_of_a_caption(scenes):
    @dataclass
    class Thing:
        shape: str
        colour: str
        cx: float
        cy: float
        visible_area: int
        is_main: bool

    places = (5.0, 56.0, 107.0)
    longest = 0
    for cx, cy, dx, dy in itertools.product(places, places, (-3.0, 0.0, 3.0), (-2.0, 2.0)):
        for (shape, colour), area in itertools.product(itertools.product(SHAPES, COLOURS), (100, 500, 1500)):
            main = Thing(shape, colour, cx, cy, area, True)
            others = [Thing(shape, colour, cx + dx, cy + dy, area // 2, False)] * 2
            longest = max(longest, *(len(text.split()) for text in describe([main, *others], PATTERNS[0])))
    assert 15 < longest < scenes.max_new_tokens  # a token a word, and one for the end


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 0}, "num_beams 0 is not a whole number of 1 or more; write one, such as num_beams=4"),
        ({"num_beams": True}, "num_beams True"),
        ({"num_beams": "4"}, "num_beams '4'"),
        ({"max_new_tokens": 2.5}, "max_new_tokens 2.5"),
        ({"max_new_tokens": -1}, "max_new_tokens -1"),
        ({"scenes": 0}, "scenes 0"),
        ({"split": "dev"}, "split 'dev' is unknown; use train, val, test"),
        ({"data": "somewhere"}, "data 'somewhere': task 'scenes-caption' draws its own pictures; leave data out"),
        ({"limit": 0}, "limit 0"),
    ],
)
def test_an_option_that_is_no_number_or_name_is_refused(options, said):
    with pytest.raises(RequestError) as caught:
        ScenesCaption(**options)
    assert said in str(caught.value)


def test_the_protocol_says_how_captions_are_searched_for_with_every_default(scenes):
    fixed = {"early_stopping": False, "length_penalty": 1.0}
    fixed |= {name: version(name) for name in ("transformers", "tokenizers")}
    assert scenes.protocol() == {"num_beams": 1, "max_new_tokens": 20, **fixed}
    beams = ScenesCaption(limit=1, num_beams=4, max_new_tokens=7)
    assert beams.protocol() == {"num_beams": 4, "max_new_tokens": 7, **fixed}


def test_a_model_that_generates_no_text_is_refused(scenes):
    said = "task 'scenes-caption' needs a captioning model such as scenes_git, and VisionTransformer generates no text"
    with pytest.raises(RequestError, match=said):
        scenes.check_model(timm.create_model("deit_tiny_patch16_224"))


def test_rows_are_the_captions_and_their_tokens(scenes):
    said = [Said("a red disc"), Said("", ()), Said("a dog", (7, 8, 102)), Said(" ")]
    rows = scenes.score(said, scenes.samples)
    assert rows == [
        {"id": s.id, "prediction": c.text, "tokens": list(c.tokens)} for s, c in zip(scenes.samples, said, strict=True)
    ]
    assert set(rows[0]) == set(scenes.outcomes.names)
    assert scenes.score([Said("")], scenes.samples[:1])[0]["prediction"] == ""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([Said("x")], "1 captions for 2 images from sample 'a' on"),
        ([Said("x")] * 3, "3 captions for 2 images from sample 'a' on"),
        ([Said("x"), Said(None)], "sample 'b' is of type NoneType"),
    ],
)
def test_captions_without_meaning_name_the_first_sample_and_give_no_row(scenes, said, words):
    with pytest.raises(CellError, match=words):
        scenes.score(said, [Sample("a", ("x",)), Sample("b", ("y",))])


def rows(captions: dict[str, str]) -> pd.DataFrame:
    tokens = [[7] * len(text.split()) + [2] for text in captions.values()]
    return pd.DataFrame({"id": list(captions), "prediction": list(captions.values()), "tokens": tokens})


@pytest.fixture(scope="module")
def summaries() -> dict[str, Any]:
    """Of cells whose captions are right, those of the next image, partly empty, and of the first half of the images."""
    task = ScenesCaption(limit=20)
    right = {s.id: s.label[0] for s in task.samples}
    wrong = dict(zip(right, [*list(right.values())[1:], right[task.samples[0].id]], strict=True))
    cells = {"right": right, "wrong": wrong, "empty": wrong | dict.fromkeys(list(wrong)[:2], "")}
    cells["half"] = dict(list(wrong.items())[:10])
    return dict(task.summaries({key: rows(captions) for key, captions in cells.items()}))


def test_a_cell_has_every_metric_with_its_interval_or_the_reason_why_not(summaries):
    names = [metric.name for metric in ScenesCaption.shown.metrics]
    reasons = availability(["plain words"])
    assert list(summaries) == ["right", "wrong", "empty", "half"]
    for summary in summaries.values():
        assert list(summary.scores) == names
        for name, score in summary.scores.items():
            if reasons.get(name):
                assert (score.value, score.low, score.high, score.reason) == (None, None, None, reasons[name])
            else:
                assert score.low <= score.value <= score.high
                assert score.reason == ""
    assert {summary.scores["cider"].value is None for summary in summaries.values()} == {False}


def test_right_captions_score_what_references_do_and_wrong_ones_less(summaries):
    right, wrong, empty = (summaries[key].scores for key in ("right", "wrong", "empty"))
    assert right["bleu_4"].value == pytest.approx(1)
    for name in ("cider", "bleu_4", "rouge_l"):
        assert empty[name].value < wrong[name].value < right[name].value
        assert right[name].low > wrong[name].value


def test_scores_of_images_stand_by_their_ids_and_those_of_a_part_are_the_same(summaries):
    assert list(summaries["wrong"].samples["id"]) == [s.id for s in ScenesCaption(limit=20).samples]
    whole, half = (summaries[key].samples.set_index("id") for key in ("wrong", "half"))
    assert len(half) == 10
    pd.testing.assert_frame_equal(whole.loc[half.index], half)
    assert summaries["half"].scores["cider"].value == pytest.approx(half["cider"].mean())


def test_empty_captions_are_counted_in_a_note(summaries):
    assert summaries["empty"].notes == ("2 of 20 captions empty, first that of 'test/00007'",)
    assert summaries["right"].notes == ()


def test_a_cell_that_says_nothing_at_all_is_an_error_and_the_length_of_captions_is_known(summaries):
    task = ScenesCaption(limit=20)
    ((key, error),) = task.summaries({"silent": rows({sample.id: " " for sample in task.samples})})
    assert (key, str(error)) == ("silent", f"all 20 captions from sample {task.samples[0].id!r} on are empty")
    right = [len(sample.label[0].split()) + 1 for sample in task.samples]
    assert summaries["right"].scores["length"].value == pytest.approx(sum(right) / 20)


def test_scorers_that_were_prepared_say_the_same_and_stay_behind_when_the_task_goes_to_a_worker():
    task = ScenesCaption(limit=6)
    cells = {"right": rows({sample.id: sample.label[0] for sample in task.samples})}
    [(_, expected)] = task.summaries(cells)
    with task.prepare_scoring():
        assert pickle.loads(pickle.dumps(task)).samples == task.samples
        process = task._prepared._process
        for _ in range(2):  # of several models' cells, one after the other
            [(_, found)] = task.summaries(cells)
            assert found.scores == expected.scores
            assert task._prepared._process is process
    [(_, after)] = task.summaries(cells)
    assert after.scores == expected.scores


def test_no_cell_starts_no_scorer():
    assert list(ScenesCaption(limit=1).summaries({})) == []


def test_the_scoring_version_is_that_of_the_scorers_and_what_can_be_scored_depends_on_java(monkeypatch, tmp_path):
    task, here = ScenesCaption(limit=1), availability()
    before = task.scoring_version()
    assert f"pycocoevalcap {version('pycocoevalcap')}" in before
    assert ("meteor" in task.scorable()) == (not here["meteor"])
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no Java
    assert task.scoring_version() == before
    assert set(task.scorable()) == {"cider", "rouge_l", *(f"bleu_{n}" for n in range(1, 5))}


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    """The embedded model's shape with random weights."""
    torch.manual_seed(0)
    words = {word for text in ScenesCaption(scenes=20).samples for word in " ".join(text.label).split()}
    tokenizer = build_word_tokenizer(words)
    config = {"input_size": (3, 112, 112), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
    config |= {"interpolation": "bicubic", "crop_mode": "center"}
    return Captioner(build_scenes_git(len(tokenizer)).eval(), tokenizer, config)


def test_a_captioning_model_is_asked_for_captions_as_the_protocol_says(captioner):
    task = ScenesCaption(limit=3, num_beams=3, max_new_tokens=6)
    task.check_model(captioner)
    preprocessing = task.preprocessing(captioner)
    images = torch.stack([task.load(sample, preprocessing) for sample in task.samples])
    assert images.shape == (3, 3, 112, 112)
    rows = task.score(task.predict(captioner, images), task.samples)
    expected = captioner.generate(images, num_beams=3, max_new_tokens=6)
    assert [row["tokens"] for row in rows] == [list(caption.tokens) for caption in expected]
    assert [row["prediction"] for row in rows] == [caption.text for caption in expected]
    assert all(1 <= len(row["tokens"]) <= 6 for row in rows)
    assert [row["tokens"] for row in rows] != [list(c.tokens) for c in captioner.generate(images, max_new_tokens=6)]


def test_the_costs_of_decoding_are_those_that_the_task_lists(captioner):
    task = ScenesCaption(limit=1)
    costs = task.further_costs(captioner, torch.zeros(1, 3, 112, 112), 1, count_module)
    assert list(costs) == [cost.name for cost in task.shown.costs]
    assert costs["prefill"] > costs["per_token"] > 0
