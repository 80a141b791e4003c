"""Archives and images that claim more than any memory holds are refused before they are unpacked."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from suite.errors import RequestError
from tasks.reading import images
from tasks.reading.images import UnreadableImage, decode, most_pixels
from tasks.reading.trees import bounds, parquet
from tasks.reading.trees.bounds import TooLargeError
from tasks.reading.trees.folder import FolderTree
from tasks.reading.trees.parquet import ParquetTree
from tasks.reading.trees.tar_file import TarTree
from tasks.reading.trees.zip_file import ZipTree


def zipped(path, name: str, data: bytes) -> ZipTree:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return ZipTree(path)


def test_a_file_of_a_zip_that_unpacks_to_hundreds_of_times_its_size_is_refused(tmp_path):
    tree = zipped(tmp_path / "bomb.zip", "a.png", bytes(bounds.SMALL + 1))
    with pytest.raises(TooLargeError, match="as those of a bomb do"):
        tree.read("a.png")


def test_a_file_of_a_zip_that_claims_more_than_is_read_at_once_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "LARGEST", 1000)
    with pytest.raises(TooLargeError, match="at most"):
        zipped(tmp_path / "large.zip", "a.png", bytes(1001)).read("a.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(bytes(1001))
    with pytest.raises(TooLargeError, match="at most"):
        FolderTree(tmp_path / "folder").read("a.png")


def test_an_empty_mask_that_shrinks_as_far_is_read(tmp_path):
    assert zipped(tmp_path / "masks.zip", "a.png", bytes(10**6)).read("a.png") == bytes(10**6)


def test_a_packed_tar_is_unpacked_no_further_than_a_bomb_shows(tmp_path):
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as packed:
        for _ in range(bounds.SMALL // 2**20 + 2):
            packed.write(bytes(2**20))
    with pytest.raises(TooLargeError, match="as those of a bomb do"):
        TarTree(tmp_path / "bomb.tar.gz")


def test_a_member_of_a_tar_that_claims_more_than_the_tar_has_is_not_given_the_memory(tmp_path):
    member = tarfile.TarInfo("a.png")
    member.size = 2**40
    (tmp_path / "lying.tar").write_bytes(member.tobuf() + bytes(10240))
    with pytest.raises((TooLargeError, RequestError)):
        TarTree(tmp_path / "lying.tar").read("a.png")


def test_a_value_that_a_dictionary_holds_once_is_not_unpacked_beyond_the_limit(tmp_path, monkeypatch):
    rows = [{"bytes": bytes(10**6), "path": None}] * 50
    pq.write_table(pa.table({"image": rows}), tmp_path / "train.parquet", use_dictionary=True)
    assert (tmp_path / "train.parquet").stat().st_size < 10**6
    tree = ParquetTree(tmp_path, [tmp_path / "train.parquet"])
    assert len(tree.read(tree.files[0])) == 10**6
    monkeypatch.setattr(parquet, "KEPT", 0)
    monkeypatch.setattr(bounds, "LARGEST", 20 * 10**6)
    tree = ParquetTree(tmp_path, [tmp_path / "train.parquet"])
    with pytest.raises(TooLargeError, match="at most"):
        tree.read(tree.files[0])


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of one row, whose header has other sizes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("sides", [(10_000, 10_000), (60_000, 60_000)])
def test_pixels_are_counted_before_they_are_decoded(sides):
    with pytest.raises(UnreadableImage, match="exceed"):
        decode(png_that_claims(*sides))


def test_the_limit_of_pixels_is_set_by_the_environment(monkeypatch):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(buffer, "PNG")
    for limit, ends in (("399", True), ("400", False)):
        most_pixels.cache_clear()
        monkeypatch.setenv(images.MORE_PIXELS, limit)
        if ends:
            with pytest.raises(UnreadableImage, match="REDUCERBENCH_MAX_PIXELS in the environment raises it"):
                decode(buffer.getvalue())
        else:
            assert decode(buffer.getvalue()).size == (20, 20)
    most_pixels.cache_clear()
    monkeypatch.setenv(images.MORE_PIXELS, "many")
    with pytest.raises(RequestError, match="is not a number of pixels"):
        decode(buffer.getvalue())
    monkeypatch.delenv(images.MORE_PIXELS)
    most_pixels.cache_clear()
