"""Small photos with masks in ADE20K's layout, and a Segmenter that is small enough for them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from suite.models.registry import MODELS
from tasks.segmentation_scoring import COLUMNS, area_columns, class_areas

FOLDER = "ADEChallengeData2016"
# (width, height) of images: lying, standing, square, a strip of several windows, small, one pixel high
SIZES = ((64, 48), (40, 60), (32, 32), (150, 30), (20, 25), (9, 1))
MINI = "seg_mini"


def name_of(number: int) -> str:
    return f"ADE_val_{number:08d}"


def encoded(pixels: np.ndarray | Image.Image, form: str, mode: str | None = None) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, form)
    return buffer.getvalue()


def photo(number: int, size: tuple[int, int], form: str = "JPEG", mode: str | None = None) -> bytes:
    soft = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return encoded(Image.fromarray(soft).resize(size), form, mode)


def labels(number: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 in patches of 8 pixels, 0..150; a fifth of them is 0, and the first one 150, as no other numbering
    has it."""
    draw = np.random.default_rng(100 + number)
    coarse = draw.integers(1, 151, (19, 19), dtype=np.uint8) * (draw.random((19, 19)) < 0.8).astype(np.uint8)
    coarse[0, 0] = 150
    return np.kron(coarse, np.ones((8, 8), dtype=np.uint8))[: size[1], : size[0]]


def ade20k(
    split: str = "validation", top: str = FOLDER, sizes: tuple[tuple[int, int], ...] = SIZES
) -> dict[str, bytes]:
    """Name -> bytes of all files, with the files beside them that ADE20K has, too."""
    files = {"objectInfo150.txt": b"Idx\tRatio\n", "sceneCategories.txt": b"ADE_val_00000001 street\n"}
    for number, size in enumerate(sizes, start=1):
        files[f"images/{split}/{name_of(number)}.jpg"] = photo(number, size)
        files[f"annotations/{split}/{name_of(number)}.png"] = encoded(labels(number, size), "PNG")
    return {f"{top}/{name}".lstrip("/"): data for name, data in files.items()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def known_mini(monkeypatch, num_classes: int = 150) -> str:
    """The name of a Segmenter of three narrow blocks on windows of 32 pixels, known while a test runs."""
    return known_as(
        monkeypatch,
        MINI,
        width=64,
        depth=3,
        heads=2,
        image_size=32,
        patch_size=8,
        num_classes=num_classes,
        decoder_depth=1,
    )


def known_as(monkeypatch, name: str, **shape: int) -> str:
    """The name of a Segmenter of that shape, else that of its authors' smallest, known while a test runs."""
    smallest = MODELS["seg_tiny_mask_16"]
    monkeypatch.setitem(MODELS, name, replace(smallest, name=name, shape={**smallest.shape, **shape}))
    return name


def areas_row(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> dict[str, list[int]]:
    """What is stored of the areas of a mask and its truth (H, W), as integers below 256."""
    said, true = (torch.from_numpy(mask.astype(np.uint8)) for mask in (prediction, truth))
    columns = area_columns(class_areas(said, true, num_classes).numpy()[None])
    [row] = pa.RecordBatch.from_arrays(columns, schema=pa.schema(COLUMNS)).to_pylist()
    return row
