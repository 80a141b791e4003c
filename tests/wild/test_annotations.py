"""Masks and captions from elsewhere: what they say is read and said, or asked for in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from suite.cli.app import main
from suite.contract.task import ReadError
from suite.errors import RequestError
from tasks.ade20k.classes import ade_palette
from tasks.ade20k.numbering import LOOKED, Look
from tasks.ade20k.task import Ade20k
from tasks.caption_scoring.scorer import CaptionScorer
from tasks.caption_scoring.tokens import on_one_line
from tasks.captioning import CaptioningTask
from tasks.coco.annotations import read_annotations
from tasks.coco.results import read_results, score_results
from tasks.coco.task import CocoCaption
from tests import captioned
from tests.captioned import CAPTIONS, file_name
from tests.segmented import encoded, known_mini
from tests.wild import annotations
from tests.wild.annotations import masks_of, patches, with_palette

COUNTS = {
    annotations.counted_from_1: (1, "labels of masks: 1..150 are the classes, 0 and 255 are none"),
    annotations.counted_from_1_with_a_border: (1, "labels of masks: 1..150 are the classes, 0 and 255 are none"),
    annotations.counted_from_0: (0, "labels of masks: 0..149 are the classes, 255 is none (reduce_zero_label=false"),
    annotations.sixteen_bits: (0, "labels of masks: 0..149 are the classes, 255 is none (reduce_zero_label=false"),
    annotations.grey_as_rgb: (1, "labels of masks: 1..150 are the classes, 0 and 255 are none"),
}
ASKED = {
    annotations.without_a_telling_label: "have labels 0..149 in 2 masks, which may count classes from 1 or from 0",
    annotations.without_the_first_class: "have labels 1..148 and 255 in 2 masks, which may count classes from 1 or",
    annotations.cityscapes_train_ids: "have labels 0..18 and 255 in 2 masks, as Cityscapes' trainIds are",
    annotations.pascal_voc: "have labels 0..20 and 255 in 2 masks, as Pascal VOC's are",
    annotations.coco_stuff: "have labels 0..181 and 255 in 2 masks, as COCO-Stuff's are",
}

LISTS = {
    annotations.coco_2014_on_2017: (str, f"4 images are matched by their COCO number, first '{391895:012d}.jpg' for "),
    annotations.karpathy_on_2017: (str, f"4 images are matched by their COCO number, first '{391895:012d}.jpg' for "),
    annotations.coco_2017_on_2014: (str, f"4 images are matched by their COCO number, first '{file_name(391895)}' for"),
    annotations.blip_val: (lambda id: f"val2014/{file_name(id)}", ""),
    annotations.blip_train: (lambda id: f"val2014/{file_name(id)}", ""),
    annotations.flickr30k: (lambda id: f"{list(CAPTIONS).index(id)}.jpg", ""),
    annotations.nocaps: (str, ""),
    annotations.textcaps: (lambda id: f"{id:016x}", ""),
}


def classes_in(task: Ade20k) -> set[int]:
    return {label for sample in task.samples for label in np.unique(task.truth(sample)).tolist()} - {255}


@pytest.mark.parametrize("case", COUNTS, ids=lambda case: case.__name__)
def test_labels_that_occur_say_which_of_them_are_classes(tmp_path, case):
    first, said = COUNTS[case]
    task = Ade20k(str(case(tmp_path)))
    assert task.notes[-1].startswith(said)
    assert task.reduce_zero_label == (first == 1)
    masks = [np.asarray(Image.open(path)) for path in tmp_path.glob("annotations/*/*.png")]
    own = {label for mask in masks for label in np.unique(mask).tolist()} - {255, 65535}
    assert classes_in(task) == {label - first for label in own} - {-1}


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.__name__)
def test_labels_that_do_not_say_it_are_asked_for_and_an_option_answers(tmp_path, case):
    data = str(case(tmp_path))
    with pytest.raises(RequestError, match=rf"{ASKED[case]}.* reduce_zero_label=true .* or reduce_zero_label=false"):
        Ade20k(data)
    for asked in (True, False):
        task = Ade20k(data, reduce_zero_label=asked)
        assert task.reduce_zero_label == asked
        assert task.notes[-1].endswith(f"(reduce_zero_label={str(asked).lower()}, as was asked)")


def test_an_option_overrides_what_the_labels_say_and_must_be_a_truth_value(tmp_path):
    data = str(annotations.counted_from_0(tmp_path))
    own, asked = Ade20k(data), Ade20k(data, reduce_zero_label=True)
    assert 149 in classes_in(own)
    assert classes_in(asked) == {label - 1 for label in classes_in(own)} - {-1}
    with pytest.raises(RequestError, match="reduce_zero_label 'maybe' is neither true nor false"):
        Ade20k(data, reduce_zero_label="maybe")


def test_results_keep_a_numbering_that_is_not_ade20ks_own(tmp_path):
    assert Ade20k(str(annotations.counted_from_0(tmp_path / "0"))).protocol()["reduce_zero_label"] is False
    assert "reduce_zero_label" not in Ade20k(str(annotations.counted_from_1(tmp_path / "1"))).protocol()


def test_a_label_that_contradicts_what_was_decided_is_named_when_it_is_read(tmp_path):
    masks = [patches([0, 7, 255], seed=n) for n in range(3)]
    data = masks_of(tmp_path, *masks)
    task = Ade20k(str(data))
    (data / "annotations/validation/v1.png").write_bytes(encoded(patches([0, 150]), "PNG"))
    with pytest.raises(ReadError, match=r"labels beyond 0\.\.149 \(and 255\): 150"):
        task.truth(task.samples[1])
    looked = Look(frozenset({0, 9, 255}), masks=LOOKED - 1)
    assert not looked.decided
    assert (looked + Look(masks=1)).decided


def test_a_palette_with_ade20ks_colours_says_where_its_indices_begin(tmp_path):
    own = np.array(ade_palette())
    mask = patches([1, 17, 90])  # labels that both numberings have
    for first, colours in enumerate((own, np.concatenate([[(0, 0, 0)], own]))):
        task = Ade20k(str(masks_of(tmp_path / str(first), mask, form=lambda mask, of=colours: with_palette(mask, of))))
        assert classes_in(task) == {1 - first, 17 - first, 90 - first}


def test_a_picture_of_a_mask_that_was_given_a_palette_is_refused(tmp_path):
    colours = np.array(ade_palette())[[17, 90, 1]]  # in the order in which they were met
    with pytest.raises(RequestError, match=r"none of the first 1 masks .* ADE20K's colours, and not at the indices of"):
        Ade20k(str(masks_of(tmp_path, patches([0, 1, 2]), form=lambda mask: with_palette(mask, colours))))


def test_coloured_masks_are_refused_before_anything_runs_and_their_kind_is_named(tmp_path, capsys, monkeypatch):
    data = masks_of(tmp_path / "data", patches([1, 17, 90]), form=annotations.full_ade20k_colours)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--task", "ade20k", "--data", str(data), "--model", known_mini(monkeypatch)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "v0.png: a mask of 8-bit RGB is coloured: the full ADE20K's colours number other objects" in line
    assert "ADEChallengeData2016" in line


def test_a_plan_says_how_labels_are_read(tmp_path, capsys, monkeypatch):
    data = annotations.counted_from_0(tmp_path / "data")
    request = ["--model", known_mini(monkeypatch), "--checkpoint", "none", "--reducers", "tome", "--rates", "merge=0.2"]
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--task", "ade20k", "--data", str(data), *request, "--no-speed", "--out", str(tmp_path / "run")])
    assert not ended.value.code
    assert "0..149 are the classes, 255 is none (reduce_zero_label=false" in capsys.readouterr().out


NAMED = {
    annotations.seg_suffix: "'_seg'",
    annotations.train_ids_suffix: "'_labelTrainIds'",
    annotations.cityscapes_names: "'_gtFine_labelTrainIds'",
}


@pytest.mark.parametrize("case", NAMED, ids=lambda case: case.__name__)
def test_masks_that_are_named_after_their_images_with_an_ending_are_theirs(tmp_path, case):
    task = Ade20k(str(case(tmp_path)))
    assert task.notes[0] == f"masks are named after their images with {NAMED[case]} at the end"
    for number, sample in enumerate(task.samples):
        labels = patches([0, 1, 150], seed=number)
        assert np.array_equal(task.truth(sample), np.where(labels == 0, 255, labels.astype(int) - 1))


def test_of_masks_with_several_endings_one_is_asked_for(tmp_path):
    data = str(annotations.several_masks(tmp_path))
    several = r"endings .*: _color \(2\), _instanceIds \(2\), _labelTrainIds \(2\); say .* mask_suffix=_labelTrainIds"
    with pytest.raises(RequestError, match=several):
        Ade20k(data)
    task = Ade20k(data, mask_suffix="_labelTrainIds")
    assert classes_in(task) == {0, 149}
    assert task.notes[0].endswith("'_labelTrainIds' at the end, 4 others are left out")
    with pytest.raises(RequestError, match=r"mask_suffix '_seg': no mask has that ending; they have '_color', '_ins"):
        Ade20k(data, mask_suffix="_seg")


def test_a_part_of_the_masks_is_refused_and_used_if_that_is_asked_for(tmp_path):
    data = str(annotations.some_masks(tmp_path))
    with pytest.raises(RequestError, match=r"2 of 3 files have no mask, first .*b\.jpg.* --task-option unpaired=skip"):
        Ade20k(data)
    task = Ade20k(data, unpaired="skip")
    assert [sample.id for sample in task.samples] == ["a"]
    assert task.notes[:2] == [
        "2 of 3 files have no mask and are left out, first images/validation/b.jpg",
        "1 of 2 files have no image and are left out, first annotations/validation/d.png",
    ]
    with pytest.raises(RequestError, match="unpaired 'both' is unknown; use refuse or skip"):
        Ade20k(data, unpaired="both")


def test_the_full_ade20k_is_known_by_its_names(tmp_path):
    with pytest.raises(
        RequestError, match=r"is the full ADE20K: .*_seg\.png' numbers some 3000 .* ADEChallengeData2016"
    ):
        Ade20k(str(annotations.full_ade20k(tmp_path)))


def test_masks_are_matched_to_images_in_another_unicode_form_and_it_is_said(tmp_path):
    task = Ade20k(str(annotations.masks_from_a_mac(tmp_path)))
    assert [sample.id for sample in task.samples] == ["b", "caf\xe9"]
    assert task.notes[0] == r"1 file is named in another Unicode form, first 'cafe\u0301' for 'caf\xe9'"
    assert all(Path(sample.path).is_file() and task.truth(sample).any() for sample in task.samples)


@pytest.mark.parametrize("case", LISTS, ids=lambda case: case.__name__)
def test_captions_of_every_list_are_those_of_their_images(tmp_path, case):
    id_of, said = LISTS[case]
    task = CocoCaption(str(case(tmp_path)))
    assert {sample.id: sample.label for sample in task.samples} == {id_of(id): tuple(CAPTIONS[id]) for id in CAPTIONS}
    photos = {id_of(id): captioned.photo(number) for number, id in enumerate(CAPTIONS)}
    assert {sample.id: Path(sample.path).read_bytes() for sample in task.samples} == photos
    assert [note for note in task.notes if not note.startswith(said)] == [] if said else task.notes == []
    assert len(task.notes) == bool(said)


def test_captions_without_a_word_are_left_out_and_said(tmp_path):
    task = CocoCaption(str(annotations.with_empty_captions(tmp_path)))
    assert [sample.label for sample in task.samples] == [("A dog runs.", "A \U0001f415!"), ("One reference.",)]
    assert task.notes == ["2 captions without a word are left out, first of image 'a.jpg'"]


def test_file_names_that_differ_in_their_unicode_form_are_matched_and_it_is_said(tmp_path):
    task = CocoCaption(str(annotations.captions_from_a_mac(tmp_path)))
    assert [sample.id for sample in task.samples] == sorted(annotations.NAMES)
    assert all(Path(sample.path).is_file() for sample in task.samples)
    (note,) = task.notes
    assert note.startswith(r"2 files are named in another Unicode form, first 'cafe\u0301.jpg' for 'caf\xe9.jpg'")


def test_of_two_files_that_differ_in_their_unicode_form_the_one_that_is_listed_is_taken(tmp_path):
    data = annotations.captions_from_a_mac(tmp_path)
    (data / annotations.NAMES[0]).write_bytes(captioned.photo(9))
    task = CocoCaption(str(data))
    assert Path(task.samples[0].path).read_bytes() == captioned.photo(9)


SAID = {391895: "a man on a moped", 522418: "a woman cuts a cake", 42: "shoes \U0001f45f on a\nrack", 318219: "a boy"}
RESULTS = {
    "COCO's server": annotations.results_of(SAID, int),
    "ids as text": annotations.results_of(SAID, str),
    "file names": annotations.results_of(SAID, lambda id: f"{id:012d}.jpg"),
    "names without an ending": annotations.results_of(SAID, lambda id: file_name(id).removesuffix(".jpg")),
    "names in folders": [{"image": f"val2014/{file_name(id)}", "caption": text} for id, text in SAID.items()],
    "a mapping": {str(id): text for id, text in SAID.items()},
    "a mapping to lists": {file_name(id): [text] for id, text in SAID.items()},
}
REFUSED = {
    "unknown": (
        [*RESULTS["COCO's server"], {"image_id": 7, "caption": "x"}],
        "1 of 5 captions .* without references, ",
    ),
    "twice": (
        [*RESULTS["COCO's server"], *RESULTS["file names"]],
        "'391895' and '000000391895.jpg' are captions of one",
    ),
    "no caption": ([{"image_id": 42}], r"a caption of entry 0 \(image '42'\) is None instead of text"),
    "no image": ([{"caption": "x"}], "entry 0 has the image_id None; it must be a number or a name"),
    "two captions": ({"42": ["x", "y"]}, "a caption of image '42' is \\['x', 'y'\\] instead of text"),
    "nothing": ([], "it holds no caption"),
    "a number": (5, "it holds 5; results are written"),
    "no JSON": (b"x", "it is not valid JSON"),
}


@pytest.mark.parametrize("form", RESULTS)
def test_results_that_are_there_are_known_by_whatever_their_images_are_called(form):
    for case in (captioned.coco(), captioned.karpathy()):
        listed = read_annotations("references", json.dumps(case).encode())
        found = read_results("results", json.dumps(RESULTS[form]).encode(), listed)
        assert found.captions == {str(id): on_one_line(text) for id, text in SAID.items()}
        assert found.notes == ()


@pytest.mark.parametrize("fault", REFUSED)
def test_results_that_cannot_be_used_are_refused_in_one_line(tmp_path, capsys, fault):
    content, reason = REFUSED[fault]
    data = captioned.write(tmp_path, {"captions_val2014.json": captioned.coco(), "results.json": content})
    with pytest.raises(SystemExit) as ended:
        main(["score", "--captions", str(data / "results.json"), "--data", str(data / "captions_val2014.json")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"captions '.*results\.json': .*{reason}", line), line


@pytest.mark.slow
def test_results_are_scored_by_the_scorers_of_a_run(tmp_path):
    said = {id: text for id, text in SAID.items() if id != 318219}
    files = {"annotations/captions_val2014.json": captioned.coco()}
    data = captioned.write(tmp_path, {**files, "captions_x_results.json": annotations.results_of(said, int)})
    found = score_results(data / "captions_x_results.json", str(data), None, None)
    with CaptionScorer({str(id): texts for id, texts in CAPTIONS.items()}) as scorer:
        ((_, own),) = scorer.score({"results": {str(id): text for id, text in said.items()}})
    assert {name: score.value for name, score in found.scores.items() if score.value is not None} == own.overall
    assert {name for name, score in found.scores.items() if score.reason} == set(own.missing)
    assert found.notes[0] == "1 of 4 images have no caption, first '318219': scores are of the others"


def test_the_verb_shows_scores_with_intervals_and_why_some_are_unknown(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no Java: captions of plain words are scored without
    references = {"a.jpg": ["a red dog runs"], "b.jpg": ["a big cat sleeps", "the cat is big"], "c.jpg": ["an old man"]}
    files = {"captions.json": references, "results.json": {"a.jpg": "a red dog runs", "b": "a red cat"}}
    data = captioned.write(tmp_path, files)
    with pytest.raises(SystemExit) as ended:
        main(["score", "--captions", str(data / "results.json"), "--data", str(data)])
    assert not ended.value.code
    said = capsys.readouterr().out
    with CaptionScorer(references) as scorer:
        ((_, own),) = scorer.score({"results": {"a.jpg": "a red dog runs", "b.jpg": "a red cat"}})
    assert {"cider", "bleu_4", "rouge_l"} <= own.overall.keys()
    for metric in CaptioningTask.shown.metrics:
        if metric.name in own.overall:
            assert re.search(rf"{metric.label} +{100 * own.overall[metric.name]:.1f} +\[[-\d.]+, [\d.]+\]", said), said
    assert re.search("METEOR +n/a +needs Java", said), said
    assert "1 of 3 images have no caption, first 'c.jpg': scores are of the others" in said


def test_references_are_asked_for(tmp_path, capsys):
    data = captioned.write(tmp_path, {"results.json": RESULTS["COCO's server"]})
    with pytest.raises(SystemExit) as ended:
        main(["score", "--captions", str(data / "results.json")])
    assert ended.value.code == 2
    assert "no references given; name their annotation file" in capsys.readouterr().err
