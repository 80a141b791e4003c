"""Data faults: every image that cannot be read is named with its reason and never replaced; the rest is untouched."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch.utils.data import DataLoader

from suite.contract.task import Batch, Reader, ReadError, collate
from suite.errors import RequestError
from tasks.imagenet.task import ImageNet
from tasks.reading.images import TimmPreprocessing, UnreadableImage, decode

PLAIN = TimmPreprocessing((3, 32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, "center")
CLASS = "n01440764"


def picture(mode: str = "RGB", form: str = "JPEG", size: tuple[int, int] = (64, 48), **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def deep_grey_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.linspace(0, 65535, 4096).reshape(64, 64).astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def huge_png() -> bytes:
    """A valid header that promises 100000 x 100000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0" * 64)) + chunk(b"IEND", b"")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


JPEG, PNG = picture(), picture(form="PNG")
UNREADABLE = {
    "cut in the header": (JPEG[:20], "."),
    "cut in the middle": (JPEG[: len(JPEG) // 2], "truncated"),
    "last byte missing": (JPEG[:-1], "truncated"),
    "end overwritten with zeros": (JPEG[:-200] + bytes(200), "truncated"),
    "cut behind a thumbnail": (picture(exif=b"Exif\0\0" + picture(size=(8, 8)))[:-200] + bytes(200), "truncated"),
    "text": (b"<html>404 not found</html>", "not an image"),
    "empty": (b"", "empty"),
    "zeros": (bytes(4096), "not an image"),
    "png cut": (PNG[: len(PNG) // 2], "."),
    "png with a wrong checksum": (flipped(PNG, len(PNG) // 2), "."),
    "webp cut": (picture(form="WEBP")[:-100], "."),
    "gif cut": (picture("P", "GIF")[:60], "."),
    "16-bit greyscale": (deep_grey_png(), "would be clipped"),
    "more pixels than memory": (huge_png(), "exceed"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
    "a sliver": (picture(form="PNG", size=(120_000, 1)), "aspect ratio"),
}
READABLE = {
    "greyscale": picture("L"),
    "cmyk": picture("CMYK"),
    "palette with transparency": picture("P", "PNG", transparency=b"\x00\x80" * 16),
    "one bit": picture("1", "PNG"),
    "transparent": picture("RGBA", "PNG"),
    "one pixel": picture(size=(1, 1)),
    "png named jpeg": PNG,
    "bytes after the end": JPEG + b"trailing",
    "odd metadata": picture(exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
}


def write(folder: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def read_all(task: ImageNet, workers: int = 0) -> list[Batch]:
    loader = DataLoader(Reader(task, task.samples, PLAIN), 4, num_workers=workers, collate_fn=collate)
    return list(loader)


@pytest.mark.parametrize("fault", UNREADABLE)
def test_an_unreadable_image_is_named_with_its_path_and_reason(tmp_path, fault):
    data, reason = UNREADABLE[fault]
    task = ImageNet(write(tmp_path, {f"{CLASS}/bad.JPEG": data}))
    with pytest.raises(ReadError, match=reason) as caught:
        task.load(task.samples[0], PLAIN)
    assert (caught.value.id, caught.value.path) == (f"{CLASS}/bad.JPEG", str(tmp_path / CLASS / "bad.JPEG"))
    assert caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:(Palette|Corrupt EXIF)")
@pytest.mark.parametrize("kind", READABLE)
def test_an_unusual_but_complete_image_is_read_as_rgb_like_timm_does(tmp_path, kind):
    task = ImageNet(write(tmp_path, {f"{CLASS}/odd.JPEG": READABLE[kind]}))
    with Image.open(tmp_path / CLASS / "odd.JPEG") as image:
        expected = PLAIN(image.convert("RGB"))
    tensor = task.load(task.samples[0], PLAIN)
    assert tensor.shape == (3, 32, 32)
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, expected)


def test_exif_orientation_is_ignored_as_timm_ignores_it():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    assert decode(picture(exif=exif)).size == (64, 48)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_take_no_row_and_every_other_image_is_its_own(tmp_path, workers):
    good = {f"{CLASS}/{i}.JPEG": picture(size=(40 + i, 40)) for i in range(9)}
    bad = {f"{CLASS}/{i}x.JPEG": UNREADABLE[fault][0] for i, fault in enumerate(list(UNREADABLE)[:8])}
    alone = ImageNet(write(tmp_path / "alone", good))
    expected = {sample.id: alone.load(sample, PLAIN) for sample in alone.samples}
    batches = read_all(ImageNet(write(tmp_path / "mixed", {**good, **bad})), workers)
    read = {s.id: image for b in batches for s, image in zip(b.samples, b.images, strict=True)}
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[id], expected[id]) for id in expected)
    assert sorted(error.id for b in batches for error in b.errors) == sorted(bad)


def test_a_batch_of_bad_images_alone_is_empty(tmp_path):
    (batch,) = read_all(ImageNet(write(tmp_path, {f"{CLASS}/{i}.JPEG": b"x" for i in range(3)})))
    assert (len(batch.samples), len(batch.images), len(batch.errors)) == (0, 0, 3)


def test_a_library_that_tolerates_truncated_images_does_not_make_us_tolerant(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(JPEG[: len(JPEG) // 2])


def test_images_listed_deleted_broken_links_and_folders_are_missing_by_name(tmp_path):
    table = b"a.JPEG,1\nb.JPEG,2\nlisted.JPEG,3\n../secret.JPEG,4\n"
    (tmp_path / "secret.JPEG").write_bytes(JPEG)
    folder = write(tmp_path / "data", {"a.JPEG": JPEG, "b.JPEG": JPEG, "labels.csv": table})
    task = ImageNet(folder)
    (tmp_path / "data" / "a.JPEG").unlink()
    (batch,) = read_all(task)
    assert [sample.id for sample in batch.samples] == ["b.JPEG"]
    reasons = {error.id: error.reason for error in batch.errors}
    assert reasons.keys() == {"a.JPEG", "listed.JPEG", "../secret.JPEG"}
    assert "does not exist" in reasons["listed.JPEG"]
    assert "FileNotFoundError" in reasons["a.JPEG"]
    os.symlink(tmp_path / "nowhere", tmp_path / "data" / "a.JPEG")
    (batch,) = read_all(ImageNet(folder))
    assert "FileNotFoundError" in next(error.reason for error in batch.errors if error.id == "a.JPEG")


def test_a_pipe_named_like_an_image_does_not_hang_the_run(tmp_path):
    write(tmp_path, {f"{CLASS}/a.JPEG": JPEG})
    os.mkfifo(tmp_path / CLASS / "b.JPEG")
    (batch,) = read_all(ImageNet(str(tmp_path)))
    assert [(error.id, "regular file" in error.reason) for error in batch.errors] == [(f"{CLASS}/b.JPEG", True)]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_without_permission_is_named(tmp_path):
    write(tmp_path, {f"{CLASS}/a.JPEG": JPEG})
    (tmp_path / CLASS / "a.JPEG").chmod(0)
    (batch,) = read_all(ImageNet(str(tmp_path)))
    assert "PermissionError" in batch.errors[0].reason


def test_a_damaged_zip_member_is_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{CLASS}/a.JPEG", JPEG)
        archive.writestr(f"{CLASS}/b.JPEG", PNG)
    data = path.read_bytes()
    path.write_bytes(flipped(data, data.index(JPEG) + len(JPEG) // 2))
    (batch,) = read_all(ImageNet(str(path)))
    assert [sample.id for sample in batch.samples] == [f"{CLASS}/b.JPEG"]
    assert "CRC" in batch.errors[0].reason


def test_links_in_a_tar_are_followed_and_a_broken_one_is_named(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo(f"{CLASS}/a.JPEG")
        info.size = len(JPEG)
        archive.addfile(info, io.BytesIO(JPEG))
        for name, target in (("b", "a.JPEG"), ("c", "gone.JPEG")):
            link = tarfile.TarInfo(f"{CLASS}/{name}.JPEG")
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    (batch,) = read_all(ImageNet(str(tmp_path / "a.tar")))
    assert torch.equal(batch.images[0], batch.images[1])
    assert [error.id for error in batch.errors] == [f"{CLASS}/c.JPEG"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_was_cut_anywhere_is_refused_and_never_read_as_a_smaller_one(tmp_path, mode):
    write(tmp_path, {f"val/{CLASS}/{i}.JPEG": JPEG for i in range(3)})
    with tarfile.open(tmp_path / "whole.tar", mode) as archive:
        archive.add(tmp_path / "val", "val")
    data = (tmp_path / "whole.tar").read_bytes()
    end = len(data) if mode != "w" else data.rindex(JPEG) + len(JPEG)
    for cut in [*range(0, end, 512), *range(300, end, 1024)]:
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        with pytest.raises(RequestError, match=r"cut\.tar"):
            ImageNet(str(tmp_path / "cut.tar"))
    if mode == "w":
        second = data.index(JPEG) + (len(JPEG) + 511) // 512 * 512
        (tmp_path / "cut.tar").write_bytes(flipped(data, second + 100))  # a damaged header looks like the end
        with pytest.raises(RequestError, match="damaged"):
            ImageNet(str(tmp_path / "cut.tar"))


REFUSED = {
    "no such folder": (None, "does not exist"),
    "nothing in it": ({}, "no image"),
    "an empty class folder": ({f"{CLASS}/a.JPEG": JPEG, "n01443537/": b""}, "n01443537' holds no image"),
    "a class of text": ({f"{CLASS}/a.JPEG": JPEG, "n01443537/notes.txt": b"x"}, "n01443537' holds no image"),
    "a folder that is no class": ({f"{CLASS}/a.JPEG": JPEG, "extra/b.JPEG": JPEG}, "'extra'.*no ImageNet-1k synset"),
    "an image outside the classes": ({f"{CLASS}/a.JPEG": JPEG, "b.JPEG": JPEG}, r"b\.JPEG' has no label"),
    "two label files": ({"a.JPEG": JPEG, "x.csv": b"a.JPEG,1", "y.csv": b"a.JPEG,2"}, "several label files"),
    "a label that is no class": ({"a.JPEG": JPEG, "x.csv": b"a.JPEG,1000"}, "line 1 .*label '1000'"),
    "a row without a label": ({"a.JPEG": JPEG, "x.csv": b"name,label\na.JPEG\n"}, "line 2 .*label ''"),
    "a name twice": ({"a.JPEG": JPEG, "x.csv": b"a.JPEG,1\na.JPEG,2"}, "line 2 .*again"),
    "a table of nothing": ({"a.JPEG": JPEG, "x.csv": b""}, "lists no image"),
    "a table with a stray quote": ({"a.JPEG": JPEG, "x.csv": b'"a.JPEG,1\n' * 9}, "line 2"),
    "a table that is no text": ({"a.JPEG": JPEG, "x.csv": b"\xff\xfe\x00"}, "not UTF-8"),
    "too few lines": (
        {"a.JPEG": JPEG, "b.JPEG": JPEG, "ILSVRC2012_validation_ground_truth.txt": b"n01440764\n"},
        "1 lines for 2 images",
    ),
    "an id of zero": ({"a.JPEG": JPEG, "ILSVRC2012_validation_ground_truth.txt": b"0\n"}, "line 1 .*'0'"),
    "an image beyond the lines": (
        {"ILSVRC2012_val_00000009.JPEG": JPEG, "ILSVRC2012_validation_ground_truth.txt": b"n01440764\n"},
        "no line",
    ),
    "a meta.mat that is none": (
        {"a.JPEG": JPEG, "ILSVRC2012_validation_ground_truth.txt": b"1\n", "meta.mat": b"junk"},
        "not that of ILSVRC2012",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_data_that_cannot_be_used_is_refused_in_one_line(tmp_path, fault):
    files, reason = REFUSED[fault]
    folder = tmp_path / "data"
    if files is not None:
        folder.mkdir()
        for name, data in files.items():
            if name.endswith("/"):
                (folder / name).mkdir(parents=True)
            else:
                write(folder, {name: data})
    with pytest.raises(RequestError, match=reason) as caught:
        ImageNet(str(folder))
    assert "\n" not in str(caught.value)


def test_data_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(RequestError, match="no folder, zip or complete tar"):
        ImageNet(str(tmp_path / "notes.txt"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"{CLASS}/a.JPEG", JPEG)
        archive.writestr(f"./{CLASS}/a.JPEG", PNG)
    with pytest.raises(RequestError, match="twice"):
        ImageNet(str(tmp_path / "a.zip"))


def test_a_read_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(ReadError("id", "path", "reason")))
    assert (error.id, error.path, error.reason, str(error)) == ("id", "path", "reason", "path: reason")
