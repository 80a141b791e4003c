"""Masks and captions from elsewhere: what they say is read and said, or asked for in one line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from suite.cli.app import main
from suite.contract.task import ReadError
from suite.errors import RequestError
from tasks.ade20k.classes import ade_palette
from tasks.ade20k.numbering import LOOKED, Look
from tasks.ade20k.task import Ade20k
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
    looked = Look(frozenset({0, 255}), masks=LOOKED - 1)
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
