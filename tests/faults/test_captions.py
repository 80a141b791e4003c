"""Captioning data and options that are wrong: one clear line each, or a named image; nothing is dropped silently."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from suite.api import run
from suite.cli.app import main
from suite.contract.task import Reader, ReadError, collate
from suite.errors import RequestError
from suite.models.load import load_model
from suite.sweep.progress import Progress
from tasks.coco.task import CocoCaption
from tasks.reading.images import TimmPreprocessing, decode
from tests.captioned import CAPTIONS, coco, file_name, karpathy, photo, photos, write

PLAIN = TimmPreprocessing((3, 32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, "center")
OFFICIAL = "annotations/captions_val2014.json"
KARPATHY = "dataset_coco.json"
JPEG = {"a.jpg": photo(1), "b.jpg": photo(2)}
OF_COCO = {**photos("val2014"), OFFICIAL: coco()}
OF_KARPATHY = {**photos("val2014"), KARPATHY: karpathy()}

OPTIONS = {
    "a split of COCO's own file": ({"split": "test"}, OF_COCO, "has no splits, and split 'test' is asked for"),
    "a split of a mapping": (
        {"split": "test"},
        {**JPEG, "captions.json": {"a.jpg": ["x"]}},
        "has no splits, and split 'test'",
    ),
    "an unknown split": ({"split": "tset"}, OF_KARPATHY, "no image is in split 'tset'; choose one of test"),
    "a split that is no name": ({"split": 5}, OF_KARPATHY, "split 5 is no name; write --task-option split=NAME"),
    "no such annotation file": (
        {"annotations": "x.json"},
        OF_COCO,
        r"annotation file 'x\.json' is neither in data '",
    ),
    "a folder of annotations": ({"annotations": "annotations"}, OF_COCO, "annotation file 'annotations' is neither"),
    "annotations that are a number": ({"annotations": 7}, OF_COCO, "annotations 7 is no name"),
    "an image as annotations": (
        {"annotations": "a.jpg"},
        {**JPEG, "captions.json": {}},
        r"a\.jpg': it is not UTF-8 text",
    ),
    "a beam of none": ({"num_beams": 0}, OF_COCO, "num_beams 0 is not a whole number of 1 or more; write one"),
}


@pytest.mark.parametrize("fault", OPTIONS)
def test_an_option_that_does_not_fit_is_refused(tmp_path, fault):
    options, files, reason = OPTIONS[fault]
    with pytest.raises(RequestError, match=reason):
        CocoCaption(str(write(tmp_path / "data", files)), **options)


def test_data_that_is_not_there_and_a_damaged_archive_are_refused(tmp_path):
    for data, reason in ((None, "no data given"), (str(tmp_path / "nowhere"), "nowhere' does not exist")):
        with pytest.raises(RequestError, match=reason):
            CocoCaption(data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", JPEG["a.jpg"])
        archive.writestr("captions.json", '{"a.jpg": ["%s"]}' % ("many words " * 50))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"captions.json") + 25] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(RequestError, match=r"annotation file '.*a\.zip:captions\.json' cannot be read"):
        CocoCaption(str(tmp_path / "a.zip"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read every file")
def test_annotations_without_permission_are_refused(tmp_path):
    write(tmp_path, OF_COCO)
    (tmp_path / OFFICIAL).chmod(0)
    with pytest.raises(RequestError, match=r"captions_val2014\.json' cannot be read"):
        CocoCaption(str(tmp_path))


@pytest.mark.parametrize("form", ["coco", "karpathy", "mapping"])
def test_a_missing_image_is_listed_and_named_and_takes_no_row(tmp_path, form):
    files = {
        "coco": {**photos("val2014"), OFFICIAL: coco()},
        "karpathy": {**photos("val2014"), KARPATHY: karpathy()},
        "mapping": {**photos(), "captions.json": {file_name(id): texts for id, texts in CAPTIONS.items()}},
    }[form]
    gone = next(name for name in files if name.endswith(file_name(42)))
    del files[gone]
    task = CocoCaption(str(write(tmp_path, files)))
    assert task.notes == [
        f"1 of 4 listed images do not exist, first {'val2014/' * (form == 'karpathy')}{file_name(42)}"
    ]
    assert len(task.samples) == 4
    (batch,) = DataLoader(Reader(task, task.samples, PLAIN), 8, collate_fn=collate)
    assert [error.reason for error in batch.errors] == ["the file is listed and does not exist"]
    assert batch.errors[0].id == (file_name(42) if form == "mapping" else "42")
    assert batch.errors[0].path == str(tmp_path / gone)  # in the folder where the others lie
    assert len(batch.images) == 3


def test_a_mappings_file_outside_the_data_is_missing_and_never_read(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(photo(3))
    names = {"a.jpg": ["x"], "../secret.jpg": ["y"], str(tmp_path / "secret.jpg"): ["z"]}
    task = CocoCaption(str(write(tmp_path / "data", {**JPEG, "captions.json": names})))
    (batch,) = DataLoader(Reader(task, task.samples, PLAIN), 8, collate_fn=collate)
    assert [sample.id for sample in batch.samples] == ["a.jpg"]
    assert {error.reason for error in batch.errors} == {"the file is listed and does not exist"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_and_every_other_image_keeps_its_own_captions(tmp_path, workers):
    files = {**photos("val2014"), OFFICIAL: coco()}
    whole = CocoCaption(str(write(tmp_path / "whole", files)))
    expected = {sample.id: whole.load(sample, PLAIN) for sample in whole.samples}
    cut = f"val2014/{file_name(42)}"
    task = CocoCaption(str(write(tmp_path / "cut", {**files, cut: files[cut][:-100]})))
    reader = Reader(task, task.samples, PLAIN)
    batches = list(DataLoader(reader, 2, num_workers=workers, collate_fn=collate))
    read = {s.id: (s.label, image) for b in batches for s, image in zip(b.samples, b.images, strict=True)}
    assert read.keys() == expected.keys() - {"42"}
    assert all(torch.equal(image, expected[id]) for id, (_, image) in read.items())
    assert all(label == tuple(CAPTIONS[int(id)]) for id, (label, _) in read.items())
    (error,) = [error for batch in batches for error in batch.errors]
    assert (error.id, error.path) == ("42", str(tmp_path / "cut" / cut))
    assert "truncated" in error.reason
    assert isinstance(pickle.loads(pickle.dumps(error)), ReadError)


def test_the_command_line_refuses_a_model_that_gives_classes(tmp_path, capsys):
    data = write(tmp_path / "data", OF_COCO)
    model = ["--model", "deit_tiny_patch16_224", "--checkpoint", "none"]
    with pytest.raises(SystemExit) as ended:
        main(["run", "--task", "coco-caption", "--data", str(data), "--out", str(tmp_path / "run"), *model])
    assert ended.value.code == 2
    assert "task 'coco-caption' needs a captioning model such as git_base_coco" in capsys.readouterr().err


def test_a_missing_image_fails_the_run_by_name_unless_it_is_allowed_and_then_the_others_are_scored(
    tmp_path, capsys, monkeypatch
):
    model, _ = load_model("scenes_git", "none")
    there, prepare = [391895, 522418, 318219], TimmPreprocessing.of(model)
    said = model(torch.stack([prepare(decode(photo(id))) for id in there]))
    captions = {id: [caption.text] for id, caption in zip(there, said, strict=True)} | {42: ["a man rides a horse"]}
    data = write(tmp_path / "data", {**photos("val2014", there), OFFICIAL: coco(captions)})
    run = ["run", "--task", "coco-caption", "--data", data, "--out", tmp_path / "run", "--model", "scenes_git"]
    run += ["--checkpoint", "none", "--reducers", "tome", "--rates", "r=8", "--no-speed", "--device", "cpu"]
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java: scorers of plain words work without, and start at once

    def exit_code(*flags: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, run), *flags])
        return ended.value.code

    assert exit_code() == 1
    printed = capsys.readouterr().err
    assert file_name(42) in printed
    assert "the file is listed and does not exist" in printed
    (record,) = map(json.loads, (tmp_path / "run" / "missing.jsonl").read_text().splitlines())
    assert (record["id"], record["reason"]) == ("42", "the file is listed and does not exist")
    assert exit_code("--allow-missing", "1") == 0
    cells = list((tmp_path / "run" / "cells").iterdir())
    cider = {}
    for cell in cells:
        assert set(pd.read_parquet(cell / "samples.parquet")["id"]) == {"318219", "391895", "522418"}
        scores = json.loads((cell / "scores.json").read_text())["scores"]
        cider[json.loads((cell / "cell.json").read_text())["reducer"]] = scores["cider"]["value"]
    assert cider.keys() == {"none", "tome"}
    assert cider["none"] == pytest.approx(10)  # the most there is, for the references of all that is there are its own
    assert cider["tome"] < 9


def test_scores_that_are_known_stay_known_where_their_scorer_is_missing_and_unknown_ones_are_made(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    spec = {"task": "scenes-caption", "limit": 4, "reducers": ["tome"], "rates": ["r=8"], "speed": False}
    spec |= {"device": "cpu", "workers": 0, "out": str(tmp_path / "run")}
    first = run(spec, progress=Progress(quiet=True)).frame()
    assert first.cider.notna().all()
    assert first.meteor.isna().all()
    path = next((tmp_path / "run").glob("cells/*/scores.json"))
    stored = json.loads(path.read_text())
    del stored["checksum"]  # what an earlier version stored has none
    elsewhere = stored["scores"] | {"meteor": {"value": 0.5, "low": 0.4, "high": 0.6, "reason": ""}}
    path.write_text(json.dumps(stored | {"scores": elsewhere}))
    run(spec, progress=Progress(quiet=True))
    assert json.loads(path.read_text())["scores"] == elsewhere
    unknown = elsewhere | {"cider": {"value": None, "low": None, "high": None, "reason": "needs something"}}
    path.write_text(json.dumps(stored | {"scores": unknown}))
    run(spec, progress=Progress(quiet=True))
    assert json.loads(path.read_text())["scores"] == stored["scores"]
