"""COCO captions: every layout gives the same samples with the same references, and the images are their own."""

from __future__ import annotations

import pickle
import shutil

import pytest

from suite.errors import RequestError
from tasks.coco.task import CocoCaption
from tasks.reading.images import TimmPreprocessing
from tests.captioned import CAPTIONS, coco, karpathy, photo, photos, write

PLAIN = TimmPreprocessing((3, 32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, "center")
OFFICIAL = "annotations/captions_val2014.json"


def outcome(task: CocoCaption) -> list[tuple[str, tuple[str, ...], bytes]]:
    return [(s.id, s.label, task.load(s, PLAIN).numpy().tobytes()) for s in task.samples]


def pairs(task: CocoCaption) -> list[tuple[str, tuple[str, ...]]]:
    return [(sample.id, sample.label) for sample in task.samples]


def test_cocos_and_karpathys_files_give_the_same_samples_wherever_the_images_lie(tmp_path):
    folders = {
        "coco": write(tmp_path / "coco", {**photos("val2014"), OFFICIAL: coco()}),
        "coco, images in images": write(tmp_path / "b", {**photos("images"), OFFICIAL: coco()}),
        "coco, images at the top": write(tmp_path / "c", {**photos(), OFFICIAL: coco()}),
        "coco, all in one folder": write(tmp_path / "d", {**photos(), "captions.json": coco()}),
        "karpathy": write(tmp_path / "e", {**photos("val2014"), "dataset_coco.json": karpathy()}),
        "karpathy, other folders": write(
            tmp_path / "f", {**photos("x/images"), "karpathy/dataset_coco.json": karpathy()}
        ),
    }
    expected = outcome(CocoCaption(str(folders["coco"])))
    assert [(id, label) for id, label, _ in expected] == [
        (str(id), tuple(CAPTIONS[id])) for id in sorted(CAPTIONS, key=str)
    ]
    for what, folder in folders.items():
        assert outcome(CocoCaption(str(folder))) == expected, what
        for form in ("zip", "tar", "gztar"):
            archive = shutil.make_archive(str(tmp_path / "archives" / folder.name), form, folder)
            assert outcome(CocoCaption(archive)) == expected, (what, form)
        wrapped = shutil.make_archive(str(tmp_path / "wrapped" / folder.name), "zip", tmp_path, folder.name)
        assert outcome(CocoCaption(wrapped)) == expected, what


def test_the_annotation_file_is_found_beside_the_images_or_named_within_them_or_elsewhere(tmp_path):
    root = write(tmp_path / "coco", {**photos("val2014"), OFFICIAL: coco()})
    expected = outcome(CocoCaption(str(root)))
    elsewhere = write(tmp_path / "papers", {"odd name.json": coco()}) / "odd name.json"
    archive = shutil.make_archive(str(root / "images"), "zip", root / "val2014")
    assert outcome(CocoCaption(str(root / "val2014"))) == expected
    assert outcome(CocoCaption(archive)) == expected
    for named in (OFFICIAL, str(root / OFFICIAL), str(elsewhere)):
        assert outcome(CocoCaption(str(root), annotations=named)) == expected, named
    assert outcome(CocoCaption(archive, annotations=str(elsewhere))) == expected


def test_a_captions_file_names_images_relative_to_itself(tmp_path):
    names = {"b.jpg": ["two words", "three words here"], "sub/a.jpg": ["a word"]}
    images = {name: photo(i) for i, name in enumerate(names)}
    folder = write(tmp_path / "mine", {**images, "captions.json": names})
    write(folder, {"other/b.jpg": photo(9)})  # of the same name, and not the one that is meant
    task = CocoCaption(str(folder))
    assert pairs(task) == [(name, tuple(texts)) for name, texts in names.items()]
    assert task.samples[1].path == str(folder / "sub" / "a.jpg")
    wrapped = shutil.make_archive(str(tmp_path / "wrapped"), "zip", tmp_path, "mine")
    assert outcome(CocoCaption(wrapped)) == outcome(task)
    assert outcome(CocoCaption(str(folder), annotations=str(folder / "captions.json"))) == outcome(task)
    backslashes = write(tmp_path / "w", {**images, "captions.json": {"b.jpg": ["x"], ".\\sub\\a.jpg": ["y"]}})
    assert [id for id, _ in pairs(CocoCaption(str(backslashes)))] == ["b.jpg", "sub/a.jpg"]


def test_images_without_a_caption_are_counted_and_left_out(tmp_path):
    files = {"a.jpg": photo(1), "b.jpg": photo(2), "c.png": photo(3), "readme.txt": b"x"}
    folder = write(tmp_path / "x", {**files, "captions.json": {"a.jpg": ["a word"]}})
    task = CocoCaption(str(folder))
    assert len(task.samples) == 1
    assert task.notes == ["2 images of the folder have no caption and are left out, first b.jpg"]
    assert CocoCaption(str(write(tmp_path / "y", {"a.jpg": photo(1), "captions.json": {"a.jpg": ["w"]}}))).notes == []


def test_a_split_is_the_files_own_and_test_by_default(tmp_path):
    splits = {391895: "test", 522418: "restval", 42: "val", 318219: "restval"}
    folder = write(tmp_path, {**photos("val2014"), "dataset_coco.json": karpathy(splits=splits)})
    for split, ids in {None: ["391895"], "test": ["391895"], "val": ["42"], "restval": ["318219", "522418"]}.items():
        assert [sample.id for sample in CocoCaption(str(folder), split=split).samples] == ids
    with pytest.raises(RequestError, match=r"no image is in split 'tset'; choose one of restval, test, val"):
        CocoCaption(str(folder), split="tset")


def test_references_are_kept_as_written_on_one_line_each(tmp_path):
    texts = ["  Two\nlines, \tA TAB. ", "one\r\nmore", "x\u2028y\x85z", "naïve 犬 🐕", "same", "same", "犬。", "...2"]
    kept = ["  Two lines, \tA TAB. ", "one more", "x y z", "naïve 犬 🐕", "same", "same", "犬。", "...2"]
    for name, content in {"c": coco({42: texts}), "k": karpathy({42: texts})}.items():
        file = {"c": "captions_x.json", "k": "dataset_coco.json"}[name]
        task = CocoCaption(str(write(tmp_path / name, {**photos(ids=[42]), file: content})))
        assert pairs(task) == [("42", tuple(kept))]
    bom = b"\xef\xbb\xbf" + '{"a.jpg": ["naïve"]}'.encode()
    task = CocoCaption(str(write(tmp_path / "m", {"a.jpg": photo(1), "captions.json": bom})))
    assert pairs(task) == [("a.jpg", ("naïve",))]


def test_a_limit_takes_evenly_spaced_images_of_the_sorted_ids(tmp_path):
    captions = {id: ["a word"] for id in (9, 10, 11, 2, 30, 1, 4, 5)}
    folder = write(tmp_path, {**photos(ids=captions), "captions.json": coco(captions)})
    assert [s.id for s in CocoCaption(str(folder)).samples] == ["1", "10", "11", "2", "30", "4", "5", "9"]
    assert [s.id for s in CocoCaption(str(folder), 2).samples] == ["11", "5"]


def test_a_task_that_travelled_to_another_process_reads_the_same_images(tmp_path):
    root = write(tmp_path / "x", {**photos("val2014"), OFFICIAL: coco()})
    task = CocoCaption(shutil.make_archive(str(tmp_path / "a"), "gztar", root))
    assert outcome(pickle.loads(pickle.dumps(task))) == outcome(task)
