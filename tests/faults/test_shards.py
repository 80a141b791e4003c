"""Shards that cannot be used are refused in one line; a row that cannot be read is named."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from suite.contract.task import ReadError
from suite.errors import RequestError
from tasks.imagenet.task import ImageNet
from tasks.reading.images import TimmPreprocessing
from tasks.reading.trees import parquet as parquet_trees
from tests.formats import Photo, parquet, parquet_table, photos_in, webdataset, write_tar

PLAIN = TimmPreprocessing((3, 32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, "center")


@pytest.fixture
def some(photos) -> list[Photo]:
    return photos_in(photos / "val")


def stored(folder: Path, table: pa.Table, name: str = "data.parquet") -> Path:
    pq.write_table(table, folder / name)
    return folder / name


def relabelled(folder: Path, some: list[Photo], labels: list, column: str = "label") -> Path:
    table = parquet_table(some, None)
    return stored(folder, table.drop_columns("label").append_column(column, [labels]))


def without_first(folder: Path, pattern: str) -> Path:
    min(folder.glob(pattern)).unlink()
    return folder


def changed(folder: Path, pattern: str, change) -> Path:
    path = min(folder.glob(pattern))
    path.write_bytes(change(path.read_bytes()))
    return folder


def tar_of(folder: Path, some: list[Photo], *beside: tuple[str, bytes], skip: int = 0) -> Path:
    """Images and files beside them, with a `.cls` for all but the first `skip`."""
    labels = [(f"{name.partition('.')[0]}.cls", str(label).encode()) for name, _, label in some[skip:]]
    return write_tar(folder / "a.tar", [*beside, *labels, *((name, data) for name, data, _ in some)])


def mixed(folder: Path, some: list[Photo]) -> Path:
    stored(folder, parquet_table(some))
    webdataset(folder, some)
    return folder


def other_columns(folder: Path, some: list[Photo]) -> Path:
    stored(folder, parquet_table(some[:6]), "a.parquet")
    stored(folder, parquet_table(some[6:]).append_column("more", [list(range(6))]), "b.parquet")
    return folder


def two_configurations(folder: Path, some: list[Photo]) -> Path:
    for name in ("small", "large"):
        (folder / name / "validation").mkdir(parents=True)
        stored(folder / name / "validation", parquet_table(some), "0000.parquet")
    return folder


def two_splits(folder: Path, some: list[Photo]) -> Path:
    parquet(folder, some, 1, split="train")
    stored(folder, parquet_table(some), "more.parquet")
    return folder


REFUSED = {
    "no column of labels": (
        lambda to, some: stored(to, parquet_table(some).drop_columns("label")),
        r"no column 'label' of whole numbers \(it has image\)",
    ),
    "labels that are text": (
        lambda to, some: relabelled(to, some, ["cat"] * 12),
        r"no column 'label' of whole numbers \('label' holds string\)",
    ),
    "a label too large": (
        lambda to, some: relabelled(to, some, [0] * 11 + [1000]),
        r"data.parquet:11' has label 1000, which is no class 0..999",
    ),
    "labels that are not published": (lambda to, some: relabelled(to, some, [-1] * 12), "label -1, .* labelled"),
    "no label in a row": (lambda to, some: relabelled(to, some, [0, None] * 6), r"data.parquet:1' has label None"),
    "no column of images": (
        lambda to, some: stored(to, parquet_table(some).drop_columns("image")),
        "no column of images, a struct with 'bytes', among label",
    ),
    "two columns of images": (
        lambda to, some: stored(
            to, pa.table({name: parquet_table(some)["image"] for name in ("left", "right")} | {"label": [0] * 12})
        ),
        "several columns of images: left, right",
    ),
    "metadata that are no JSON": (
        lambda to, some: stored(to, parquet_table(some).replace_schema_metadata({"huggingface": "{"})),
        "metadata 'huggingface' cannot be read",
    ),
    "a Parquet file that was cut": (
        lambda to, some: changed(parquet(to, some), "data/*", lambda data: data[:-50]),
        "shard '.*validation-00000-of-00003.parquet' cannot be read: .*; copy or download it again",
    ),
    "a Parquet file of zeros": (
        lambda to, some: changed(parquet(to, some), "data/*", lambda data: bytes(len(data))),
        "validation-00000-of-00003.parquet' cannot be read",
    ),
    "a missing shard": (
        lambda to, some: without_first(parquet(to, some), "data/*"),
        "lacks 1 of 3 shards, first 'data/validation-00000-of-00003'",
    ),
    "shards of other data": (other_columns, "b.parquet' has other columns than '.*a.parquet'"),
    "shards of two kinds": (mixed, "'.*data.parquet' and '.*val-000000.tar'; name shards of one kind"),
    "a pattern of two kinds": (lambda to, some: mixed(to, some) / "*", "name shards of one kind"),
    "two configurations": (two_configurations, "several folders: large/validation, small/validation"),
    "two splits, none of them to choose": (two_splits, "'data/train-.*' and 'more.parquet', neither of a split"),
    "a pattern with a shard that is not there": (
        lambda to, some: webdataset(to, some) / "val-{000000..000003}.tar",
        "there is no file '.*val-000003.tar'",
    ),
    "a pattern of nothing": (lambda to, some: to / "*.parquet", r"there is no file '.*\*.parquet'"),
    "a tar that was cut": (
        lambda to, some: changed(webdataset(to, some), "*.tar", lambda data: data[: len(data) // 2]),
        "val-000000.tar. is no folder, zip or complete tar",
    ),
    "an image without a label": (
        lambda to, some: tar_of(to, some, skip=1),
        "image '.*n01440764_0.JPEG' has no label: there is no 'n01440764_0.cls'",
    ),
    "two images of one key": (
        lambda to, some: tar_of(to, some, ("n01440764_0.png", some[0][1])),
        "'.*n01440764_0.JPEG' and 'n01440764_0.png' have one key",
    ),
    "a label that is no class": (
        lambda to, some: tar_of(to, some, ("n01440764_0.cls", b"tench"), skip=1),
        "label file '.*n01440764_0.cls' says no class 0..999",
    ),
    "a label that is no text": (
        lambda to, some: tar_of(to, some, ("n01440764_0.cls", b"\xff\xfe"), skip=1),
        "label file '.*n01440764_0.cls' cannot be read",
    ),
    "a label that is no JSON": (
        lambda to, some: tar_of(to, some, ("n01440764_0.json", b"{"), skip=1),
        "label file '.*n01440764_0.json' cannot be read",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_shards_that_cannot_be_used_are_refused_in_one_line(tmp_path, some, fault):
    make, reason = REFUSED[fault]
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(RequestError, match=reason) as caught:
        ImageNet(str(make(folder, some)))
    assert "\n" not in str(caught.value)


def test_names_of_classes_and_their_number_must_agree(tmp_path, some):
    data = str(stored(tmp_path, parquet_table([(*photo[:2], 1) for photo in some], ["cat", "dog"])))
    with pytest.raises(RequestError, match=r"num_classes is 3, but '.*' names 2 classes"):
        ImageNet(data, num_classes=3)
    with pytest.raises(RequestError, match="Parquet files bring their own"):
        ImageNet(data, labels=data)


def test_a_row_group_that_no_process_could_keep_is_refused(tmp_path, some, monkeypatch):
    monkeypatch.setattr(parquet_trees, "LARGEST", 1000)
    with pytest.raises(RequestError, match="row groups of about 100 rows"):
        ImageNet(str(parquet(tmp_path / "data", some)))


def test_a_row_without_bytes_is_named_and_the_others_are_read(tmp_path, some):
    table = parquet_table(some)
    images = table["image"].to_pylist()
    images[3]["bytes"], images[4] = None, None
    table = table.set_column(0, "image", [pa.array(images, table.schema.field("image").type)])
    task = ImageNet(str(stored(tmp_path, table)))
    bad = {"n01443537_0.JPEG", "data.parquet:4"}
    for sample in task.samples:
        if sample.id in bad:
            with pytest.raises(ReadError, match=r"data.parquet:[34]: OSError: the row holds no bytes of an image"):
                task.load(sample, PLAIN)
        else:
            task.load(sample, PLAIN)
    assert bad < {sample.id for sample in task.samples}


def test_a_damaged_page_is_named_and_not_decoded(tmp_path, some):
    pq.write_table(parquet_table(some), tmp_path / "data.parquet", write_page_checksum=True)
    task = ImageNet(str(changed(tmp_path, "*.parquet", lambda data: data[:3000] + b"?" + data[3001:]) / "data.parquet"))
    with pytest.raises(ReadError, match=r"data.parquet:\d+: OSError: .*CRC"):
        task.load(task.samples[0], PLAIN)


def test_a_shard_that_is_replaced_while_the_run_goes_on_is_not_read_by_the_old_index(tmp_path, some):
    task = ImageNet(str(stored(tmp_path, parquet_table(some))))
    stored(tmp_path, parquet_table(some[::-1]))
    os.utime(tmp_path / "data.parquet", ns=(1, 1))
    with pytest.raises(ReadError, match="the shard has changed since it was opened"):
        task.load(task.samples[0], PLAIN)
