"""ADE20K: every layout gives the same samples, labels mean what mmsegmentation says, and a run scores them."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from suite import attach
from suite.api import run
from suite.contract.task import Reader, collate
from suite.errors import CellError, RequestError
from suite.measure.flops import count_flops, count_module
from suite.models.random_weights import build_random
from suite.models.registry import find_entry
from suite.stats.areas import dense_areas
from suite.sweep.progress import Progress
from tasks.ade20k.task import Ade20k
from tasks.segmentation import RESTORE, WindowScores
from tasks.segmentation_scoring import iou_metric
from tasks.windows import SlidingWindows, num_windows
from tests.segmented import FOLDER, SIZES, ade20k, encoded, known_mini, labels, name_of, photo, write
from tests.tiers import spread

WINDOWS = SlidingWindows(32, (0.5,) * 3, (0.5,) * 3)
QUIET = Progress(quiet=True)


@pytest.fixture
def data(tmp_path) -> str:
    return str(write(tmp_path / "data", ade20k()))


@pytest.fixture
def spec(data, tmp_path, monkeypatch) -> dict:
    """A run of a tiny Segmenter with random weights."""
    return {
        "task": "ade20k",
        "data": data,
        "model": known_mini(monkeypatch),
        "checkpoint": "none",
        "batch_size": 4,
        "device": "cpu",
        "workers": 0,
        "reducers": ["tome", "evit"],
        "rates": ["merge=0.5"],
        "speed": False,
        "out": str(tmp_path / "run"),
    }


def outcome(task: Ade20k) -> list[tuple]:
    return [(s.id, s.label, task.truth(s).tobytes(), task.load(s, WINDOWS).numpy().tobytes()) for s in task.samples]


def test_every_layout_gives_the_same_samples(tmp_path):
    root = write(tmp_path / "wrapped", ade20k())
    expected = outcome(Ade20k(str(root)))
    assert [id for id, *_ in expected] == [name_of(i) for i in range(1, len(SIZES) + 1)]
    assert expected[0][1] == f"annotations/validation/{name_of(1)}.png"
    assert outcome(Ade20k(str(root / FOLDER))) == expected
    for folder in (root, root / FOLDER):
        for form in ("zip", "tar", "gztar"):
            archive = shutil.make_archive(str(tmp_path / form / folder.name), form, folder)
            assert outcome(Ade20k(archive)) == expected, (folder, form)
    assert outcome(pickle.loads(pickle.dumps(Ade20k(str(root))))) == expected


def test_splits_are_apart_and_a_limit_is_evenly_spaced(tmp_path):
    files = {**ade20k(), **ade20k(split="training", sizes=((32, 32),))}
    data = str(write(tmp_path, files))
    assert len(Ade20k(data).samples) == len(SIZES)
    (only,) = Ade20k(data, split="training").samples
    assert only.label == f"annotations/training/{name_of(1)}.png"
    assert [s.id for s in Ade20k(data, limit=2).samples] == [name_of(2), name_of(5)]


def test_files_that_are_neither_image_nor_mask_are_counted(tmp_path):
    stray = {f"{FOLDER}/images/validation/made_by.txt": b"x", f"{FOLDER}/annotations/validation/readme.txt": b"x"}
    data = str(write(tmp_path, {**ade20k(), **stray}))
    task = Ade20k(data)
    assert len(task.samples) == len(SIZES)
    assert task.notes[:-1] == [f"2 files are neither images nor masks, first {FOLDER}/images/validation/made_by.txt"]
    assert Ade20k(str(write(tmp_path / "clean", ade20k()))).notes == task.notes[-1:]


def test_truths_and_images_have_their_original_size_and_windows_their_number(data):
    task = Ade20k(data)
    for number, (sample, (width, height)) in enumerate(zip(task.samples, SIZES, strict=True), start=1):
        truth, image = task.truth(sample), task.image(sample)
        assert (image.mode, image.size) == ("RGB", (width, height))
        assert truth.dtype == np.int64
        assert (
            truth == np.where(labels(number, (width, height)) == 0, 255, labels(number, (width, height)) - 1.0)
        ).all()
        assert task.size(sample) == (height, width)
        assert len(task.load(sample, WINDOWS)) == num_windows(height, width, 32)
    assert task.windows_per_image(32) == np.mean([num_windows(height, width, 32) for width, height in SIZES])
    assert len({num_windows(height, width, 32) for width, height in SIZES}) > 2


def test_grey_and_png_photographs_are_read_as_rgb(tmp_path):
    files = ade20k(sizes=((40, 30), (40, 30)))
    images = f"{FOLDER}/images/validation"
    files[f"{images}/{name_of(1)}.jpg"] = photo(1, (40, 30), mode="L")
    files[f"{images}/{name_of(2)}.PNG"] = photo(2, (40, 30), "PNG")
    del files[f"{images}/{name_of(2)}.jpg"]
    task = Ade20k(str(write(tmp_path, files)))
    grey, colour = (task.load(sample, WINDOWS) for sample in task.samples)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert not torch.equal(colour[:, 0], colour[:, 1])


def test_names_and_colours_are_mmsegmentations(data):
    task = Ade20k(data)
    assert task.class_names[:3] == ("wall", "building", "sky")
    assert task.palette[0] == (120, 120, 120)
    assert len(task.class_names) == len(task.palette) == task.num_classes == 150


def test_models_that_give_no_scores_of_these_classes_are_refused(data, monkeypatch):
    task = Ade20k(data)
    with pytest.raises(RequestError, match="Linear gives no class scores per patch; choose a model such as seg_small"):
        task.check_model(torch.nn.Linear(2, 2))
    with pytest.raises(RequestError, match="'ade20k' has 150 classes, and the model 49; choose a model such as"):
        task.check_model(build_random(find_entry("scenes_segmenter")))
    task.check_model(build_random(find_entry(known_mini(monkeypatch))))


@pytest.mark.parametrize("restore", RESTORE)
def test_the_model_is_told_when_to_give_tokens_back(data, monkeypatch, restore):
    model, task = build_random(find_entry(known_mini(monkeypatch))), Ade20k(data, restore=restore)
    task.configure(model)
    assert model.restore == restore
    assert task.protocol()["restore"] == restore


def test_rows_of_a_batch_are_those_of_each_sample_and_of_masks_scored_at_once(data, monkeypatch):
    task, model = Ade20k(data), build_random(find_entry(known_mini(monkeypatch))).eval()
    batch = collate(list(Reader(task, task.samples, task.preprocessing(model))))
    with torch.inference_mode():
        outputs = task.predict(model, batch.images)
    assert len(outputs) == len(batch.images) == sum(batch.views)
    rows, first = task.score(outputs, batch.samples), 0
    for sample, views, row in zip(batch.samples, batch.views, rows, strict=True):
        mask = task.predicted_mask(outputs[first : first + views], sample)
        assert mask.shape == task.truth(sample).shape
        assert mask.dtype == np.int64
        assert task.score(outputs[first : first + views], [sample]) == [row]
        pair = map(torch.from_numpy, (mask, task.truth(sample)))
        both, _, predicted, labelled = iou_metric().intersect_and_union(*pair, 150, 255)
        dense = dense_areas(pd.DataFrame([row]), 150)[0]
        assert (dense == torch.stack([both, predicted, labelled]).numpy()).all()
        assert row["classes"] == np.flatnonzero(dense.any(axis=0)).tolist()
        first += views
    assert len({row["prediction"] for row in rows}) == len(rows)
    assert set(rows[0]) == set(task.outcomes.names)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_name_the_sample(data, value):
    task = Ade20k(data)
    counts = [num_windows(height, width, 32) for width, height in SIZES]
    scores = torch.zeros(sum(counts), 150, 4, 4)
    scores[counts[0] + counts[1], 7, 3, 3] = value
    with pytest.raises(CellError, match=f"the class scores of sample '{name_of(3)}' hold NaN or Inf"):
        task.score(WindowScores(scores, 32), task.samples)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((0, 150, 4, 4), r"outputs of shape \(0, 150, 4, 4\) for the 2 windows of sample 'ADE_val_00000001'"),
        ((2, 49, 4, 4), r"outputs of shape \(2, 49, 4, 4\) .* expected \(2, 150, h, w\)"),
        ((2, 150, 16), r"outputs of shape \(2, 150, 16\)"),
        ((5, 150, 4, 4), "5 windows, 3 more than there are up to the last sample 'ADE_val_00000001'"),
    ],
)
def test_outputs_of_another_shape_are_refused(data, shape, said):
    task = Ade20k(data)
    with pytest.raises(CellError, match=said):
        task.score(WindowScores(torch.zeros(shape), 32), task.samples[:1])


@pytest.mark.parametrize("restore", RESTORE)
def test_costs_are_of_the_decoder_as_it_runs_and_of_an_images_windows(data, monkeypatch, restore):
    task, model = Ade20k(data, restore=restore), build_random(find_entry(known_mini(monkeypatch))).eval()
    task.configure(model)
    images = torch.cat([task.load(sample, WINDOWS) for sample in task.samples[:2]])
    whole = task.further_costs(model, images, 1000, count_module)
    assert whole["decoder"] == count_module(model.decoder, torch.zeros(1, 16, 64))
    assert whole["image"] == task.windows_per_image(32) * (1000 + whole["decoder"])
    with attach(model, "tome", "merge=0.5"):
        reduced = task.further_costs(model, images, count_flops(model, images=images).total, count_module)
    if restore == "after_decoder":
        assert reduced["decoder"] == count_module(model.decoder, torch.zeros(1, 8, 64)) < whole["decoder"]
    else:
        assert reduced["decoder"] == whole["decoder"]


@pytest.mark.parametrize("restore", spread(3, RESTORE))
def test_a_run_scores_every_method_with_ioumetric_and_continues_where_it_stopped(spec, restore):
    spec["task_options"] = {"restore": restore}
    results = run(spec, progress=QUIET)
    assert not results.failed
    frame = results.frame()
    assert frame.status.tolist() == ["done"] * 3
    assert (frame.image_gmacs > frame.gmacs + frame.decoder_gmacs).all()
    cells = sorted((results.out / "cells").iterdir())
    task = Ade20k(spec["data"])
    for cell in cells:
        rows = pd.read_parquet(cell / "samples.parquet")
        assert rows.id.tolist() == [sample.id for sample in task.samples]
        known = [np.count_nonzero(task.truth(sample) != 255) for sample in task.samples]
        assert [sum(areas) for areas in rows.labelled] == [sum(areas) for areas in rows.predicted] == known
        both, predicted, labelled = torch.from_numpy(dense_areas(rows, 150).sum(axis=0)).float()
        found = iou_metric().total_area_to_metrics(both, predicted + labelled - both, predicted, labelled)
        scores = json.loads((cell / "scores.json").read_text())["scores"]
        assert scores["miou"]["value"] == pytest.approx(np.nanmean(found["IoU"]), rel=1e-6)
        assert scores["miou"]["low"] <= scores["miou"]["value"] <= scores["miou"]["high"]
        assert json.loads((cell / "cell.json").read_text())["restore"] == restore
    written = {cell: (cell / "samples.parquet").read_bytes() for cell in cells}
    (cells[0] / "samples.parquet").unlink()
    (cells[1] / "scores.json").unlink()
    again = run(spec, progress=QUIET)
    assert again.frame().status.tolist() == ["done"] * 3
    assert written == {cell: (cell / "samples.parquet").read_bytes() for cell in cells}


def test_batches_of_another_size_score_the_same(spec, tmp_path):
    frames = []
    for size in (1, 6):
        out = str(tmp_path / f"of {size}")
        run({**spec, "reducers": ["tome"], "batch_size": size, "out": out}, progress=QUIET)
        rows = [pd.read_parquet(cell) for cell in sorted((tmp_path / f"of {size}" / "cells").glob("*/samples.parquet"))]
        frames.append(sorted(tuple(part.prediction) for part in rows))
    assert frames[0] == frames[1]


def test_a_bad_mask_fails_its_cells_by_name_until_it_is_allowed_and_is_scored_once_repaired(spec, data):
    file = f"{data}/{FOLDER}/annotations/validation/{name_of(2)}.png"
    good = labels(2, SIZES[1])
    with open(file, "wb") as mask:
        mask.write(encoded(np.full_like(good, 200), "PNG"))
    failed = run(spec, progress=QUIET).failed
    assert len(failed) == 3
    assert all(f"{name_of(2)}.png: 2400 pixels of the mask have labels beyond" in reason for reason in failed)
    assert run({**spec, "allow_missing": 1}, progress=QUIET).frame().samples.tolist() == [len(SIZES) - 1] * 3
    with open(file, "wb") as mask:
        mask.write(encoded(good, "PNG"))
    assert run(spec, progress=QUIET).frame().samples.tolist() == [len(SIZES)] * 3
