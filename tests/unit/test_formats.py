"""The same images in whatever people store them: equal samples, tensors and tables."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from reports.tables.results import write_tables
from suite.api import run
from suite.contract.task import Reader, collate
from suite.store.folder import RunFolder
from suite.sweep.changes import read_contents
from suite.sweep.progress import Progress
from tasks.imagenet.task import ImageNet
from tasks.reading.images import TimmPreprocessing
from tasks.reading.trees import parquet as parquet_trees
from tests.formats import SYNSETS, class_folders_tar, parquet, parquet_table, photos_in, webdataset, write_tar

PLAIN = TimmPreprocessing((3, 32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, "center")
SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "imagenet-sample" / "val"
needs_photographs = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the ImageNet sample photographs are not here")
QUIET = Progress(quiet=True)


def in_every_format(root: Path, out: Path) -> dict[str, str]:
    """Format -> data, of the class folders below `root`."""
    photos = photos_in(root)
    several = webdataset(out / "webdataset", photos)
    webdataset(out / "json", photos, shards=2, beside="json")
    return {
        "class folders": str(root),
        "tar": str(class_folders_tar(out / "photos.tar", photos)),
        "webdataset": str(several),
        "webdataset by a pattern": str(several / "val-{000000..000002}.tar"),
        "webdataset of json": str(out / "json"),
        "parquet": str(parquet(out / "parquet", photos)),
        "one parquet file": str(parquet(out / "one", photos, 1) / "data" / "validation-00000-of-00001.parquet"),
    }


def outcome(data: str, **options: object) -> list[tuple[str, int, bytes]]:
    """Of every sample: the last part of its id, its label, its pixels."""
    task = ImageNet(data, **options)
    return [(s.id.split("/")[-1], s.label, task.load(s, PLAIN).numpy().tobytes()) for s in task.samples]


def tables(spec: dict, forms: dict[str, str], out: Path) -> dict[str, tuple[bytes, list[str]]]:
    """Format -> the table of a run, and the digests of its samples in their order."""
    found = {}
    for name, data in forms.items():
        folder = out / name
        results = run({**spec, "data": data, "out": str(folder)}, progress=QUIET, report=False)
        write_tables(results.frame(), folder / "report")
        contents = read_contents(RunFolder(folder)).values()
        found[name] = without_places(folder / "report" / "table.csv"), sorted(content.digest for content in contents)
    return found


def without_places(table: Path) -> bytes:
    """The table less the keys of its cells, which are made of the data's place and ids."""
    with table.open() as stream:
        rows = [{name: value for name, value in row.items() if name != "key"} for row in csv.DictReader(stream)]
    assert rows
    return json.dumps(rows).encode()


def test_every_format_gives_the_same_samples_in_the_same_order(photos, tmp_path):
    forms = in_every_format(photos / "val", tmp_path)
    expected = outcome(forms["class folders"])
    assert len(expected) == 12
    for name, data in forms.items():
        assert outcome(data) == expected, name
        assert outcome(data, limit=5) == outcome(forms["class folders"], limit=5), name


def test_every_format_gives_the_same_table(tiny_run, photos, tmp_path):
    forms = in_every_format(photos / "val", tmp_path / "data")
    some = {name: forms[name] for name in ("class folders", "webdataset", "parquet")}
    found = tables({**tiny_run, "reducers": ["tome"]}, some, tmp_path / "runs")
    assert all(of == found["class folders"] for of in found.values())


@pytest.mark.slow
@needs_photographs
def test_two_hundred_photographs_give_the_same_table_in_every_format(tiny_run, tmp_path):
    root = tmp_path / "val"
    root.mkdir()
    for folder in sorted(SAMPLE.iterdir())[::5]:
        (root / folder.name).symlink_to(folder)
    forms = in_every_format(root, tmp_path / "data")
    assert len(photos_in(root)) == 200
    found = tables({**tiny_run, "batch_size": 32}, forms, tmp_path / "runs")
    assert all(of == found["class folders"] for of in found.values())


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_loader_workers_read_shards_like_the_main_process(photos, tmp_path, form, method):
    task = ImageNet(in_every_format(photos / "val", tmp_path)[form])
    expected = torch.stack([task.load(sample, PLAIN) for sample in task.samples])  # opens the shards here, too
    loader = DataLoader(
        Reader(task, task.samples, PLAIN), 3, num_workers=2, collate_fn=collate, multiprocessing_context=method
    )
    batches = list(loader)
    assert torch.equal(torch.cat([batch.images for batch in batches]), expected)
    assert not [error for batch in batches for error in batch.errors]


def test_a_row_group_is_read_once_and_few_are_kept(photos, tmp_path, monkeypatch):
    tree = ImageNet(str(parquet(tmp_path / "p", photos_in(photos / "val"), shards=1, rows=4))).tree
    in_turn = [tree.read(name) for name in tree.rows]
    assert len(tree._groups) == 3
    again = pickle.loads(pickle.dumps(tree))
    assert not again._groups
    monkeypatch.setattr(parquet_trees, "KEPT", 1)
    assert [again.read(name) for name in tree.rows] == in_turn
    assert len(again._groups) == 1


def test_row_groups_that_make_reading_slow_are_named(photos, tmp_path, monkeypatch):
    data = str(parquet(tmp_path / "p", photos_in(photos / "val"), rows=4))
    assert ImageNet(data).notes == []
    monkeypatch.setattr(parquet_trees, "SLOW", 1000)
    assert "row groups of up to 0 MiB are read whole" in ImageNet(data).notes[0]


def test_keys_and_paths_that_several_shards_have_are_told_apart_by_the_shard(photos, tmp_path):
    some = photos_in(photos / "val")[:2]
    webdataset(tmp_path / "tars", [("same.JPEG", data, label) for _, data, label in some], shards=2)
    parquet(tmp_path / "rows", [("same.JPEG", data, label) for _, data, label in some], shards=2)
    assert {s.id for s in ImageNet(str(tmp_path / "tars")).samples} == {
        "val-000000.tar/same.JPEG",
        "val-000001.tar/same.JPEG",
    }
    assert {s.id for s in ImageNet(str(tmp_path / "rows")).samples} == {
        "validation-00000-of-00002.parquet:0",
        "validation-00001-of-00002.parquet:0",
    }
    expected = sorted(pixels for *_, pixels in outcome(str(photos))[:2])
    for data in ("tars", "rows"):
        assert sorted(pixels for *_, pixels in outcome(str(tmp_path / data))) == expected


def test_names_of_classes_say_which_they_are(photos, tmp_path):
    some = photos_in(photos / "val")
    labels = sorted({label for *_, label in some})
    ranked = [(name, data, labels.index(label)) for name, data, label in some]

    def stored(names: list[str] | None, column: str = "label") -> str:
        table = parquet_table(ranked, names)
        renamed = table.rename_columns(["image", column]).replace_schema_metadata(table.schema.metadata)
        pq.write_table(renamed, tmp_path / "some.parquet")
        return str(tmp_path / "some.parquet")

    synsets = ImageNet(stored([SYNSETS[label] for label in labels]))
    assert (synsets.num_classes, {s.label for s in synsets.samples}) == (1000, set(labels))
    others = ImageNet(stored(["cat", "dog", "cow", "hen"]))
    assert (others.num_classes, {s.label for s in others.samples}) == (4, {0, 1, 2, 3})
    unnamed = ImageNet(stored(None, "fine_label"), num_classes=4)
    assert (unnamed.num_classes, {s.label for s in unnamed.samples}) == (4, {0, 1, 2, 3})


def test_of_several_splits_the_validation_is_read_and_the_others_are_named(photos, tmp_path):
    some, data = photos_in(photos / "val"), tmp_path / "data"
    for split, part in (("train", some[:6]), ("test", some[6:9]), ("validation", some[9:])):
        parquet(data, part, 1, split=split)
    task = ImageNet(str(data))
    assert len(task.samples) == 3
    assert task.notes == ["shards of split 'validation' are used, not those of split 'test', split 'train'"]
    assert len(ImageNet(str(data / "data" / "train-*.parquet")).samples) == 6
    for split, notes in (
        ("validation", ["shards of split 'test' are used, not those of split 'train'"]),
        ("train", []),
    ):
        next(data.glob(f"data/{split}-*")).unlink()
        assert ImageNet(str(data)).notes == notes


def test_where_only_a_training_split_lies_that_is_said(photos, tmp_path):
    data = parquet(tmp_path / "data", photos_in(photos / "val"), 1, split="train")
    assert ImageNet(str(data)).notes == ["shards of split 'train' are used"]


def test_a_tar_of_class_folders_with_metadata_beside_images_is_what_it_was(photos, tmp_path):
    files = [(f"{SYNSETS[label]}/{name}", data) for name, data, label in photos_in(photos / "val")]
    about = [(name.replace("JPEG", "json"), b'{"width": 72}') for name, _ in files]
    task = ImageNet(str(write_tar(tmp_path / "photos.tar", [*about, *files])))
    assert [s.id for s in task.samples] == sorted(name for name, _ in files)
    assert task.notes[0] == "12 files are no images and are left out, first n01440764/n01440764_0.json"


def test_an_image_column_may_have_another_name_and_no_paths(photos, tmp_path):
    some = photos_in(photos / "val")
    images = pa.array([{"bytes": data} for _, data, _ in some], pa.struct([("bytes", pa.large_binary())]))
    pq.write_table(pa.table({"img": images, "labels": [label for *_, label in some]}), tmp_path / "p.parquet")
    task = ImageNet(str(tmp_path / "p.parquet"))
    assert [s.id for s in task.samples[:2]] == ["p.parquet:0", "p.parquet:1"]
    assert sorted(p for *_, p in outcome(str(tmp_path / "p.parquet"))) == sorted(p for *_, p in outcome(str(photos)))
