"""Masks that are no masks, and images that do not belong to theirs: each is named with what is wrong, none is used."""

from __future__ import annotations

import pickle
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from suite.contract.task import Reader, ReadError, collate
from suite.errors import RequestError
from tasks.ade20k.task import Ade20k
from tasks.reading.images import UnreadableImage
from tasks.reading.masks import RecentMasks, class_indices, mask_size, read_mask
from tasks.windows import SlidingWindows
from tests.segmented import FOLDER, ade20k, encoded, labels, name_of, photo, write

WINDOWS = SlidingWindows(32, (0.5,) * 3, (0.5,) * 3)
SIZE = (40, 30)
MASK = labels(1, SIZE)
PNG = encoded(MASK, "PNG")
IMAGES, MASKS = f"{FOLDER}/images/validation", f"{FOLDER}/annotations/validation"


def palette(pixels: np.ndarray = MASK, bits: int = 8) -> bytes:
    """A PNG with a palette in which the colour of an index has nothing to do with it."""
    image = Image.fromarray(pixels).convert("P")
    image = Image.frombytes("P", image.size, pixels.tobytes())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 3 * 2**bits, dtype=np.uint8).tobytes())
    return encoded(image, "PNG")


def low_grey(pixels: np.ndarray, bits: int) -> bytes:
    """A greyscale PNG of 1, 2 or 4 bits, which Pillow would stretch to 0..255."""
    height, width = pixels.shape
    per_byte = 8 // bits
    padded = np.pad(pixels, ((0, 0), (0, -width % per_byte))).reshape(height, -1, per_byte)
    packed = (padded << (bits * np.arange(per_byte)[::-1]).astype(np.uint8)).sum(axis=2).astype(np.uint8)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


NO_MASKS = {
    "RGB": (encoded(np.stack([MASK, MASK, MASK + 1], axis=2), "PNG"), "8-bit RGB is coloured: .* use masks of indices"),
    "RGB with alpha": (encoded(np.stack([MASK, MASK + 1, MASK, MASK // MASK.max() * 255], axis=2), "PNG"), "RGBA is"),
    "greyscale that is transparent": (
        encoded(Image.merge("LA", [Image.fromarray(MASK)] * 2), "PNG"),
        "8-bit greyscale with alpha says no class",
    ),
    "16 bits that say more": (encoded(MASK.astype(np.uint16) * 200, "PNG"), r"pixels .* beyond 0\.\.150 .*: 3000, "),
    "1 bit": (encoded(MASK > 75, "PNG"), "1-bit greyscale says no class"),
    "4 bits": (low_grey(MASK % 16, 4), "4-bit greyscale says no class"),
    "a JPEG": (encoded(MASK, "JPEG"), "no PNG .* masks are PNG files"),
    "text": (b"<html>404 not found</html>", "no PNG"),
    "empty": (b"", "0 bytes"),
    "cut in the header": (PNG[:20], "truncated"),
    "cut behind the header": (PNG[:40], "."),
    "cut in the middle": (PNG[: len(PNG) // 2], "."),
    "a wrong checksum": (flipped(PNG, len(PNG) // 2), "."),
    "a label too large": (encoded(np.where(MASK == 0, 151, MASK).astype(np.uint8), "PNG"), r"beyond 0\.\.150 .*: 151$"),
    "labels up to 254": (encoded(np.full(MASK.shape, 254, np.uint8), "PNG"), "^1200 pixels .*: 254$"),
    "another size": (encoded(labels(1, (40, 31)), "PNG"), "the image is 40x30 and its mask 40x31 pixels"),
    "turned": (encoded(MASK.T.copy(), "PNG"), "the image is 40x30 and its mask 30x40 pixels"),
}
NO_IMAGES = {
    "16 bits": (encoded(np.zeros(MASK.shape, np.uint16), "PNG"), "would be clipped"),
    "cut": (photo(1, SIZE)[:-50], "truncated"),
    "empty": (b"", "empty"),
    "a sliver": (photo(1, (5000, 1)), "aspect ratio 5000:1"),
}
GOOD_MASKS = {
    "greyscale": PNG,
    "palette": palette(),
    "interlaced or not": PNG + b"bytes after the end",
    "grey as RGB": encoded(MASK, "PNG", "RGB"),
    "grey as RGB that hides nothing": encoded(MASK, "PNG", "RGBA"),
    "greyscale that hides nothing": encoded(MASK, "PNG", "LA"),
    "16 bits": encoded(MASK.astype(np.uint16), "PNG"),
}


def data_with(tmp_path, image: bytes, mask: bytes) -> Ade20k:
    files = ade20k(sizes=(SIZE, SIZE))
    return Ade20k(
        str(write(tmp_path, {**files, f"{IMAGES}/{name_of(1)}.jpg": image, f"{MASKS}/{name_of(1)}.png": mask}))
    )


@pytest.mark.parametrize("fault", NO_MASKS)
def test_a_mask_that_is_none_is_named_and_its_image_not_shown(tmp_path, fault):
    mask, reason = NO_MASKS[fault]
    task = data_with(tmp_path, photo(1, SIZE), mask)
    batch = collate(list(Reader(task, task.samples, WINDOWS)))
    assert [sample.id for sample in batch.samples] == [name_of(2)]
    (error,) = batch.errors
    assert error.id == name_of(1)
    assert re.search(reason, error.reason), error.reason
    assert error.path.endswith(".jpg" if "the image is" in reason else f"{MASKS}/{name_of(1)}.png")
    assert "\n" not in str(error)


@pytest.mark.parametrize("fault", NO_IMAGES)
def test_an_image_that_is_none_is_named_although_its_mask_is_good(tmp_path, fault):
    image, reason = NO_IMAGES[fault]
    mask = np.zeros((1, 5000) if fault == "a sliver" else MASK.shape, np.uint8)
    task = data_with(tmp_path, image, encoded(mask, "PNG"))
    with pytest.raises(ReadError, match=reason) as caught:
        task.load(task.samples[0], WINDOWS)
    assert caught.value.path.endswith(f"{IMAGES}/{name_of(1)}.jpg")
    assert task.windows_per_image(32) == 2  # what cannot be read has no windows


@pytest.mark.parametrize("kind", GOOD_MASKS)
def test_indices_are_read_whatever_their_colours(kind):
    assert (read_mask(GOOD_MASKS[kind]) == MASK).all()
    assert mask_size(GOOD_MASKS[kind]) == MASK.shape


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_may_have_fewer_bits(bits):
    image = Image.frombytes("P", SIZE, (MASK % 2**bits).tobytes())
    image.putpalette(bytes(range(3 * 2**bits)))
    data = encoded(image, "PNG")
    assert data[24] == bits
    assert (read_mask(data) == MASK % 2**bits).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_labels_count_classes_from_1_or_from_0_and_255_is_none(kind):
    mask = np.array([[0, 1, 149, 255]], dtype=kind)
    assert class_indices(mask, 150, reduce_zero_label=True).tolist() == [[255, 0, 148, 255]]
    assert class_indices(mask, 150, reduce_zero_label=False).tolist() == [[0, 1, 149, 255]]
    assert mask.tolist() == [[0, 1, 149, 255]]
    for label, first in ((151, True), (253, True), (254, True), (150, False), (254, False)):
        with pytest.raises(UnreadableImage, match=f"1 pixels .*: {label}$"):
            class_indices(np.array([[0, label]], dtype=kind), 150, reduce_zero_label=first)


def test_unlabelled_pixels_of_16_bits_are_none():
    assert class_indices(np.array([[65535, 7]], np.uint16), 150, reduce_zero_label=False).tolist() == [[255, 7]]


def test_a_mask_of_one_pixel_is_read():
    assert read_mask(encoded(np.full((1, 1), 7, np.uint8), "PNG")).tolist() == [[7]]


def test_masks_are_remembered_until_there_are_too_many(monkeypatch):
    monkeypatch.setattr("tasks.reading.masks.REMEMBERED", 100)
    masks, read = RecentMasks(), []

    def get(id: str, size: int) -> int:
        return masks.get(id, lambda: read.append(id) or torch.zeros(1, size, dtype=torch.uint8)).numel()

    assert [get(id, 40) for id in "abab"] == [40] * 4
    assert read == ["a", "b"]
    assert [get(id, 40) for id in "cab"] == [40] * 3  # 'c' drives out 'a', 'a' drives out 'b', ...
    assert read == ["a", "b", "c", "a", "b"]
    assert get("large", 500) == 500
    assert get("a", 40) == 40
    assert read[-2:] == ["large", "a"]
    pickle.loads(pickle.dumps(masks)).get("a", lambda: read.append("again") or torch.zeros(1))
    assert read[-1] == "again"


FILES = ade20k(sizes=(SIZE, SIZE, SIZE))
PAIRING = {
    "an image without a mask": (
        {f"{MASKS}/{name_of(2)}.png": None},
        rf"{name_of(2)}\.jpg' has no mask '.*{name_of(2)}",
    ),
    "a mask without an image": (
        {f"{IMAGES}/{name_of(2)}.jpg": None},
        rf"{name_of(2)}\.png' has no image '.*{name_of(2)}",
    ),
    "images without masks": (
        {f"{MASKS}/{name_of(i)}.png": None for i in (2, 3)},
        rf"2 of 3 files have no mask, first '.*{name_of(2)}\.jpg'",
    ),
    "an image twice": ({f"{IMAGES}/{name_of(1)}.png": photo(1, SIZE, "PNG")}, f"are both '{name_of(1)}'; remove one"),
    "masks that are JPEGs": (
        {f"{MASKS}/{name_of(i)}{end}": data for i in (1, 2, 3) for end, data in ((".png", None), (".jpg", PNG))},
        rf"validation' holds no mask \(\*\.png\); '{name_of(1)}\.jpg' is no PNG, and JPEG changes labels",
    ),
    "no images": ({f"{IMAGES}/{name_of(i)}.jpg": None for i in (1, 2, 3)}, "no folder images/validation"),
    "nothing at all": (dict.fromkeys(FILES), "no folder images/validation and no folder annotations/validation"),
    "nested data sets": (ade20k(top=f"{FOLDER}/copy", sizes=(SIZE,)), "holds 2 data sets"),
    "two data sets": (ade20k(top="other", sizes=(SIZE,)), "holds 2 data sets: 'ADEChallengeData2016', 'other'"),
}


@pytest.mark.parametrize("fault", PAIRING)
def test_images_and_masks_that_are_no_pairs_are_refused_in_one_line(tmp_path, fault):
    changes, reason = PAIRING[fault]
    files = {name: data for name, data in {**FILES, **changes}.items() if data is not None}
    with pytest.raises(RequestError, match=reason) as caught:
        Ade20k(str(write(tmp_path, files)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"split": "test"}, "split 'test' is unknown; use validation or training"),
        ({"split": "training"}, "no folder images/training and no folder annotations/training"),
        ({"restore": "never"}, "restore 'never' is unknown; use before_decoder, after_decoder, per_block"),
        ({"restore": ["per_block"]}, "restore .* is unknown"),
        ({"limit": 0}, "limit 0 asks for no sample"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(tmp_path, options, reason):
    with pytest.raises(RequestError, match=reason):
        Ade20k(str(write(tmp_path, FILES)), **options)


def test_a_mask_that_vanishes_is_named(tmp_path):
    task = data_with(tmp_path, photo(1, SIZE), PNG)
    (tmp_path / MASKS / f"{name_of(1)}.png").unlink()
    with pytest.raises(ReadError, match="FileNotFoundError"):
        task.load(task.samples[0], WINDOWS)
    assert torch.isfinite(task.load(task.samples[1], WINDOWS)).all()
