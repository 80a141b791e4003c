"""Small real JPEG files in ImageNet's layout, drawn from a seed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SYNSETS = ("n01440764", "n01443537", "n02123045", "n07753592")


def write_photos(root: Path, each: int = 3, size: int = 72) -> Path:
    """`each` photos in every class folder below root/val; returns `root`."""
    draw = np.random.default_rng(7)
    for synset in SYNSETS:
        folder = root / "val" / synset
        folder.mkdir(parents=True)
        for i in range(each):
            soft = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((size, size))
            soft.save(folder / f"{synset}_{i}.JPEG", quality=90)
    return root


def write_photos_of_training(root: Path) -> Path:
    """The photos of `write_photos`, and others of the same classes below root/train; returns `root`."""
    shutil.move(write_photos(root / "others") / "val", root / "train")
    (root / "others").rmdir()
    return write_photos(root)
