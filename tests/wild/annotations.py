"""Masks and captions as other people's files have them, small ones: each function writes a case into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.segmented import encoded, photo, write

SIZE = (160, 128)  # (width, height)


def masks_of(folder: Path, *labels: np.ndarray, form: Callable[[np.ndarray], bytes] | None = None) -> Path:
    """Photos with masks (H, W) in ADE20K's layout, as `form` writes them; names as of anybody's own pictures."""
    files = {}
    for number, mask in enumerate(labels):
        files[f"images/validation/v{number}.jpg"] = photo(number, mask.shape[::-1])
        files[f"annotations/validation/v{number}.png"] = (form or (lambda mask: encoded(mask, "PNG")))(mask)
    return write(folder, files)


def patches(labels: list[int], seed: int = 0) -> np.ndarray:
    """A mask (H, W) uint8 in patches of these labels, all of which occur."""
    width, height = SIZE
    places = np.resize(np.array(labels, np.uint8), 20)
    return np.kron(np.random.default_rng(seed).permutation(places).reshape(4, 5), np.ones((32, 32), np.uint8))[
        :height, :width
    ]


def counted_from_0(folder: Path) -> Path:
    """`prepare_ade20k_sem_seg.py` of detectron2, MaskFormer and Mask2Former: 0..149, and 255 for 'other'."""
    return masks_of(folder, patches([0, 17, 149, 255]), patches([3, 80, 148, 255], seed=1))


def counted_from_1(folder: Path) -> Path:
    """ADEChallengeData2016 itself: 1..150, and 0 for 'other'."""
    return masks_of(folder, patches([0, 1, 18, 150]), patches([4, 81, 149, 0], seed=1))


def counted_from_1_with_a_border(folder: Path) -> Path:
    """ADEChallengeData2016 after an annotation tool, which marks pixels that nobody looked at by 255."""
    return masks_of(folder, patches([0, 1, 18, 150]), patches([4, 81, 149, 255], seed=1))


def without_a_telling_label(folder: Path) -> Path:
    """A few masks of either kind: neither 'flag' (150) nor an ignored pixel (255) occurs."""
    return masks_of(folder, patches([0, 17, 149]), patches([3, 80, 148], seed=1))


def without_the_first_class(folder: Path) -> Path:
    """A few masks in which 255 occurs, and 0 and 150 do not: 0 may have been made 255, or no wall be in the picture."""
    return masks_of(folder, patches([1, 17, 255]), patches([3, 80, 148], seed=1))


def cityscapes_train_ids(folder: Path) -> Path:
    """`createTrainIdLabelImgs.py` of cityscapesscripts, put where mmsegmentation's recipes for own data want them."""
    return masks_of(folder, patches([*range(10), 255]), patches([*range(10, 19), 255], seed=1))


def pascal_voc(folder: Path) -> Path:
    """SegmentationClass of VOC2012: 0 background, 1..20, 255 along the edges."""
    return masks_of(folder, patches([*range(11), 255]), patches([0, *range(11, 21), 255], seed=1))


def coco_stuff(folder: Path) -> Path:
    """stuffthingmaps of COCO-Stuff: 0..181, and 255."""
    return masks_of(folder, patches([0, 105, 181, 255]), patches([2, 156, 176, 255], seed=1))


def grey_as_rgb(folder: Path) -> Path:
    """OpenCV's `imwrite` of three equal channels, and exports of tools that know no greyscale."""
    return masks_of(folder, patches([0, 1, 150]), form=lambda mask: encoded(mask, "PNG", "RGB"))


def sixteen_bits(folder: Path) -> Path:
    """Labels that numpy had as uint16 when they were saved; 65535 is none in detectron2's full ADE20K."""
    mask = patches([0, 1, 149]).astype(np.uint16)
    mask[:8] = 65535
    return masks_of(folder, mask)


def full_ade20k_colours(mask: np.ndarray) -> bytes:
    """A `_seg.png` of the full ADE20K: class in red (tens) and green, up to some 3000; instance in blue."""
    index = mask.astype(int) * 17
    colours = np.stack([index // 256 * 10, index % 256, index % 7], axis=2)
    return encoded(colours.astype(np.uint8), "PNG")


def with_palette(mask: np.ndarray, colours: np.ndarray) -> bytes:
    """A PNG of indices whose palette has these colours (n, 3)."""
    image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    image.putpalette(colours.astype(np.uint8).tobytes())
    return encoded(image, "PNG")
